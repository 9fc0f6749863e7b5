//! One connection per client id: who comes later makes the earlier one leave, and waits until it has.
//!
//! rumqttd must never see two connections of one id at once, nor one before the last has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

/// The client ids that are connected.
#[derive(Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<String, Arc<Occupant>>>,
}

struct Occupant {
    leave: Notify,
    /// Ends when its seat is dropped.
    gone: watch::Receiver<()>,
}

/// A client id that is connected, until this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    client_id: String,
    occupant: Arc<Occupant>,
    _gone: watch::Sender<()>,
}

impl Seats {
    /// Takes the seat of this client id, as soon as whoever had it has left. It waits for that as long as it takes.
    pub(super) async fn take(self: &Arc<Seats>, client_id: &str) -> Seat {
        loop {
            let mut gone = {
                let mut taken = self
                    .taken
                    .lock()
                    .expect("nothing panics while it is locked");
                match taken.get(client_id) {
                    None => {
                        let (sender, gone) = watch::channel(());
                        let leave = Notify::new();
                        let occupant = Arc::new(Occupant { leave, gone });
                        taken.insert(client_id.to_owned(), occupant.clone());
                        return Seat {
                            seats: self.clone(),
                            client_id: client_id.to_owned(),
                            occupant,
                            _gone: sender,
                        };
                    }
                    Some(occupant) => {
                        occupant.leave.notify_one();
                        occupant.gone.clone()
                    }
                }
            };
            // Nothing is ever sent: this returns when the sender is dropped.
            let _ = gone.changed().await;
        }
    }
}

impl Seat {
    /// Returns when another connection wants this seat.
    pub(super) async fn asked_to_leave(&self) {
        self.occupant.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self
            .seats
            .taken
            .lock()
            .expect("nothing panics while it is locked");
        taken.remove(&self.client_id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_second_taker_waits_until_the_first_has_left() {
        let seats = Arc::new(Seats::default());
        let first = seats.take("press-7").await;
        let _other = seats.take("press-8").await;

        let second = tokio::spawn({
            let seats = seats.clone();
            async move { seats.take("press-7").await }
        });
        first.asked_to_leave().await;
        assert!(!second.is_finished());
        drop(first);
        let second = timeout(Duration::from_secs(5), second).await;
        drop(second.expect("the seat is free").unwrap());
        timeout(Duration::from_secs(5), seats.take("press-7"))
            .await
            .expect("nobody sits there");
    }
}
