//! The memory of processes that mostly wait.

use std::ops::Range;

/// Asks the kernel to give this process memory in small pages, where the allocator has asked for large ones: a page of 2 MB of which little
/// is used is a page of 2 MB. Queries are faster with large ones.
pub fn in_small_pages() {
    in_small_pages_beyond(0);
}

/// The same, but for the first `bytes` of it, which the allocator uses first.
fn in_small_pages_beyond(bytes: usize) {
    let mut left = bytes.next_multiple_of(LARGE_PAGE);
    for place in places(&smaps()).filter(|place| place.flags.contains(&"hg")) {
        let large = left.min(place.range.len());
        left -= large;
        let start = (place.range.start + large) as *mut libc::c_void;
        // SAFETY: the range is mapped, and this says nothing but how it is to be filled: its content stays.
        #[allow(unsafe_code, reason = "the allocator has no way to say this to the kernel")]
        unsafe {
            libc::madvise(start, place.range.len() - large, libc::MADV_NOHUGEPAGE);
        }
    }
}

/// Keeps to what queries need. They are faster in large pages, of which more is taken than used: what is in use all the time is in large ones,
/// and what comes and goes with a large join is in small ones, and goes back to the system soon.
pub fn for_queries() {
    in_small_pages_beyond(IN_LARGE_PAGES);
    mi_option_set(PURGE_DELAY, SOON_MS);
    forget_the_start();
}

/// Bytes that queries have in large pages.
const IN_LARGE_PAGES: usize = 64 << 20;
/// How long a query's memory stays after it was used: what reads next wants it again. To get it back from the system each time is a tenth
/// of the work of reading; what is kept for longer only adds to the most that is in use at once.
const SOON_MS: libc::c_long = 100;
/// The bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// `mi_option_purge_delay`: after how many milliseconds memory that is free goes back to the system.
const PURGE_DELAY: libc::c_int = 15;

#[allow(unsafe_code, reason = "functions of the allocator, which is written in C")]
unsafe extern "C" {
    // <https://microsoft.github.io/mimalloc/group__options.html>
    safe fn mi_option_set(option: libc::c_int, value: libc::c_long);
    #[cfg(test)]
    safe fn mi_option_get(option: libc::c_int) -> libc::c_long;
    // <https://microsoft.github.io/mimalloc/group__extended.html>
    safe fn mi_collect(force: bool);
}

/// Gives memory that is free back to the system, now and whenever some is free.
pub fn give_back() {
    // A process that sleeps would do it when it wakes up again.
    mi_option_set(PURGE_DELAY, 0);
    mi_collect(true);
}

/// Lets go of the pages of the program itself that this process has read: most were needed to start it, such as the list of what is to
/// be relocated. Those that are needed again come back from the file.
pub fn forget_the_start() {
    let Ok(program) = std::env::current_exe() else { return };
    let is_as_in_the_file = |place: &Place<'_>| {
        place.path == program.to_string_lossy() && place.access.starts_with("r-") && place.changed_kb == Some(0)
    };
    for place in places(&smaps()).filter(is_as_in_the_file) {
        // SAFETY: nobody writes to the range, and nothing in it differs from the file: what is read of it next is the same.
        #[allow(unsafe_code, reason = "there is no other way to say this to the kernel")]
        unsafe {
            libc::madvise(place.range.start as *mut libc::c_void, place.range.len(), libc::MADV_DONTNEED);
        }
    }
}

fn smaps() -> String {
    std::fs::read_to_string("/proc/self/smaps").unwrap_or_default()
}

/// A range of addresses that is mapped.
#[derive(Debug, Default, PartialEq)]
struct Place<'a> {
    range: Range<usize>,
    /// As in `r-xp`.
    access: &'a str,
    /// The file, if it is one.
    path: &'a str,
    /// Kilobytes that this process has changed.
    changed_kb: Option<usize>,
    /// What holds for it, in two letters each.
    flags: Vec<&'a str>,
}

/// What is in the text of `/proc/PID/smaps`; see proc_pid_smaps(5). The flags are the last that it says of each.
fn places(text: &str) -> impl Iterator<Item = Place<'_>> {
    let mut place = Place::default();
    text.lines().filter_map(move |line| {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            place.flags = flags.split_ascii_whitespace().collect();
            return Some(std::mem::take(&mut place));
        }
        if let Some(number) = line.strip_prefix("Private_Dirty:") {
            place.changed_kb = number.trim().split(' ').next().and_then(|number| number.parse().ok());
        } else if let Some((range, rest)) = line.split_once(' ')
            && let Some((first, last)) = range.split_once('-')
        {
            let address = |text: &str| usize::from_str_radix(text, 16).unwrap_or_default();
            place.range = address(first)..address(last);
            place.access = rest.split(' ').next().unwrap_or_default();
            place.path = rest.find('/').map_or("", |start| &rest[start..]);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn what_is_mapped_is_read() {
        let text = "5b0000-5c0000 r-xp 00001000 fe:00 12   /opt/my tools/flumen\nSize: 64 kB\nPrivate_Dirty:  0 kB\n\
                    VmFlags: rd ex mr mw me \n\
                    7f00000-7f40000 rw-p 00000000 00:00 0  [anon]\nPrivate_Dirty:    24 kB\nVmFlags: rd wr mr mw me ac hg \n";
        let found: Vec<Place<'_>> = super::places(text).collect();
        let program = Place {
            range: 0x5b_0000..0x5c_0000,
            access: "r-xp",
            path: "/opt/my tools/flumen",
            changed_kb: Some(0),
            flags: vec!["rd", "ex", "mr", "mw", "me"],
        };
        assert_eq!(found[0], program);
        assert_eq!((found[1].path, found[1].changed_kb, found[1].flags.last()), ("", Some(24), Some(&"hg")));
        // The kernel takes what is found for this process.
        super::in_small_pages();
        assert!(super::mi_option_get(super::PURGE_DELAY) > 0, "there is a delay by default: it is this option");
        super::give_back();
        assert_eq!(super::mi_option_get(super::PURGE_DELAY), 0);
    }

    #[test]
    fn pages_of_the_program_come_back() {
        let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let read_kb = || {
            let text = super::smaps();
            let own = text.split("VmFlags:").find(|part| part.contains(&program) && part.contains(" r-xp ")).unwrap();
            let line = own.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let text = super::smaps();
        let code = super::places(&text).find(|place| place.path == program && place.access == "r-xp").unwrap();
        for page in code.range.clone().step_by(4096) {
            // SAFETY: it is mapped, for reading too.
            #[allow(unsafe_code, reason = "the program's own code, read as bytes")]
            let _ = unsafe { std::ptr::read_volatile(page as *const u8) };
        }
        let all = read_kb();
        super::forget_the_start();
        let some = read_kb();
        assert!(some < all / 2, "{some} of {all} kB");
    }
}
