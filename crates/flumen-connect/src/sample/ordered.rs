//! Work on several threads, results in order: what makes a file the same on any number of cores.

use std::sync::mpsc::sync_channel;

use super::{Failure, Watch};

/// Finished results that a worker may be ahead of whoever takes them.
const AHEAD: usize = 1;

/// Calls `make` for 0, 1 … `count` - 1 on `workers` threads and hands the results to `take` in that order.
/// At most two results a worker exist at a time. The first failure, or [`Watch::cancel`], ends all.
pub(super) fn in_order<T: Send>(
    count: u64,
    workers: usize,
    watch: &Watch,
    make: impl Fn(u64) -> Result<T, Failure> + Sync,
    mut take: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let workers = workers.clamp(1, 64).min(count.max(1) as usize);
    std::thread::scope(|scope| {
        let mut queues = Vec::with_capacity(workers);
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(AHEAD);
            let make = &make;
            scope.spawn(move || {
                for block in (worker as u64..count).step_by(workers) {
                    // Nobody receives any more when the taker has failed.
                    if sender.send(make(block)).is_err() {
                        break;
                    }
                }
            });
            queues.push(receiver);
        }
        for block in 0..count {
            if watch.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            match queues[(block % workers as u64) as usize].recv() {
                Ok(made) => take(made?)?,
                Err(_) => return Err(Failure::Cancelled),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_on_any_number_of_threads() {
        for workers in [0, 1, 3, 200] {
            let mut taken = Vec::new();
            let taking = |block| {
                taken.push(block);
                Ok(())
            };
            in_order(100, workers, &Watch::default(), Ok, taking).unwrap();
            assert_eq!(taken, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_failure_or_a_cancellation_ends_all() {
        let fails = |block| if block == 7 { Err(Failure::Cancelled) } else { Ok(block) };
        assert!(in_order(1_000, 3, &Watch::default(), fails, |_| Ok(())).is_err());
        assert!(in_order(1_000, 3, &Watch::default(), Ok, |block| fails(block).map(drop)).is_err());
        let watch = Watch::default();
        let cancels = |block| {
            if block == 3 {
                watch.cancel();
            }
            Ok(())
        };
        assert!(matches!(in_order(1_000, 2, &watch, Ok, cancels), Err(Failure::Cancelled)));
    }
}
