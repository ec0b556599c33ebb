//! Processes that are killed, and processes that are many: what they leave is a lake that is whole.

mod crash;
mod many;
mod place;
mod store;
mod work;

/// Copies the folder `from` to `to`, into what is there.
pub fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
