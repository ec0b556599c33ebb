//! Wakes between the processes of one machine that share a file: nobody has to look again and again.
//!
//! Whoever listens has a socket without a name in the file system, whose address (an id) is the name of an empty file in a folder
//! beside the shared file. Whoever has changed something sends a few bytes to all of them. A listener that is gone leaves a file
//! behind, which the next sender removes.

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flumen_core::flow::store::Wake;
use futures::stream::BoxStream;

use crate::wakes::{LETTERS, Wakes};

/// Wakes those who listen, here and in other processes.
#[derive(Debug)]
pub(crate) struct Bell {
    folder: PathBuf,
    here: Mutex<Here>,
}

#[derive(Debug, Default)]
struct Here {
    wakes: Wakes,
    /// The name under which this process listens, once it does.
    name: Option<String>,
    sender: Option<UnixDatagram>,
}

impl Bell {
    /// That of the file at `path`.
    pub(crate) fn at(path: &Path) -> Self {
        let mut folder = path.as_os_str().to_owned();
        folder.push("-listeners");
        Self { folder: folder.into(), here: Mutex::default() }
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody.
    pub(crate) fn ring(&self, kinds: &BTreeSet<Wake>) {
        if kinds.is_empty() {
            return;
        }
        let mut here = self.here();
        for kind in kinds {
            here.wakes.wake(*kind);
        }
        let Ok(listeners) = std::fs::read_dir(&self.folder) else { return };
        let message: Vec<u8> =
            LETTERS.iter().filter(|(_, kind)| kinds.contains(kind)).map(|(letter, _)| *letter).collect();
        for listener in listeners.flatten() {
            let name = listener.file_name();
            if here.name.as_deref().is_some_and(|own| name == *own) {
                continue;
            }
            if here.sender.is_none() {
                // A full box means that a wake is on its way already.
                let made = UnixDatagram::unbound().and_then(|made| made.set_nonblocking(true).map(|()| made));
                here.sender = made.ok();
            }
            let (Some(sender), Ok(address)) = (&here.sender, address(&name.to_string_lossy())) else { continue };
            if let Err(error) = sender.send_to_addr(&message, &address)
                && error.kind() == std::io::ErrorKind::ConnectionRefused
            {
                let _ = std::fs::remove_file(listener.path());
            }
        }
    }

    /// Wakes from now on, from this process and others. Must be called within a Tokio runtime.
    pub(crate) fn listen(self: &std::sync::Arc<Self>) -> BoxStream<'static, Wake> {
        let mut here = self.here();
        let stream = here.wakes.listen();
        if here.name.is_none() {
            // Without an ear for others, those who listen still hear their own process; and look on their own from time to time.
            if let Ok((name, socket)) = self.open() {
                here.name = Some(name);
                let bell = std::sync::Arc::downgrade(self);
                tokio::spawn(async move {
                    let mut message = [0; 64];
                    while let Ok(length) = socket.recv(&mut message).await {
                        let Some(bell) = bell.upgrade() else { break };
                        let mut here = bell.here();
                        for (_, kind) in LETTERS.iter().filter(|(letter, _)| message[..length].contains(letter)) {
                            here.wakes.wake(*kind);
                        }
                    }
                });
            }
        }
        stream
    }

    fn open(&self) -> std::io::Result<(String, tokio::net::UnixDatagram)> {
        std::fs::create_dir_all(&self.folder)?;
        // A name that nobody has: the kernel gives a number that no other process has now, and refuses an address that is taken.
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        for number in 0..100 {
            let name = format!("{}-{number}", std::process::id());
            let socket = match UnixDatagram::bind_addr(&address(&self.qualified(&name))?) {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UnixDatagram::from_std(socket)?;
            let name = self.qualified(&name);
            std::fs::write(self.folder.join(&name), "")?;
            return Ok((name, socket));
        }
        Err(last)
    }

    /// Names are those of a machine: with the inode of the folder in them, another store's listeners are others.
    fn qualified(&self, name: &str) -> String {
        use std::os::unix::fs::MetadataExt as _;
        let (device, inode) = std::fs::metadata(&self.folder).map_or((0, 0), |of| (of.dev(), of.ino()));
        format!("flumen-{device:x}-{inode:x}-{name}")
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(name) = self.here().name.take() {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }
}

fn address(name: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name.as_bytes())
}
