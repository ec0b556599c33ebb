//! Whoever listens for something new.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use flumen_core::flow::store::Wake;
use futures::StreamExt as _;
use futures::stream::{BoxStream, poll_fn};

/// Kinds of wakes, by the letters that stand for them in a message.
pub(crate) const LETTERS: [(u8, Wake); 7] = [
    (b'i', Wake::Inbox),
    (b'q', Wake::Queue),
    (b's', Wake::Stop),
    (b't', Wake::Timer),
    (b'w', Wake::Wait),
    (b'n', Wake::Notice),
    (b'r', Wake::Run),
];

/// All listeners of a store; their streams end with it.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    listeners: Vec<Arc<Mutex<Listener>>>,
}

#[derive(Debug, Default)]
struct Listener {
    /// What is new and was not told yet.
    new: BTreeSet<Wake>,
    waker: Option<Waker>,
    closed: bool,
}

fn lock(listener: &Mutex<Listener>) -> MutexGuard<'_, Listener> {
    listener.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wakes {
    pub(crate) fn listen(&mut self) -> BoxStream<'static, Wake> {
        let listener = Arc::new(Mutex::new(Listener::default()));
        self.listeners.push(Arc::clone(&listener));
        poll_fn(move |context| {
            let mut listener = lock(&listener);
            match listener.new.pop_first() {
                Some(wake) => Poll::Ready(Some(wake)),
                None if listener.closed => Poll::Ready(None),
                None => {
                    listener.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .boxed()
    }

    pub(crate) fn wake(&mut self, wake: Wake) {
        // A listener that only we still know has gone.
        self.listeners.retain(|listener| Arc::strong_count(listener) > 1);
        for listener in &self.listeners {
            let mut listener = lock(listener);
            listener.new.insert(wake);
            if let Some(waker) = listener.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for listener in &self.listeners {
            let mut listener = lock(listener);
            listener.closed = true;
            if let Some(waker) = listener.waker.take() {
                waker.wake();
            }
        }
    }
}
