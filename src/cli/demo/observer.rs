//! The independent witness at the cloud broker: an MQTT client of its own, with its own certificate and its own connection,
//! that notes which records arrive. It knows nothing of the sender but its envelope.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cli::Failure;
use crate::outbox::RecordId;

/// What arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// How often each record came.
    times: HashMap<RecordId, u64>,
    /// Messages per topic.
    pub(super) topics: BTreeMap<String, u64>,
    /// Messages that were no record in the JSON envelope.
    pub(super) unreadable: u64,
    /// Why it no longer listens.
    problem: Option<String>,
}

impl Received {
    pub(super) fn has(&self, id: RecordId) -> bool {
        self.times.contains_key(&id)
    }

    pub(super) fn has_all(&self, ids: &[RecordId]) -> bool {
        ids.iter().all(|id| self.has(*id))
    }

    pub(super) fn messages(&self) -> u64 {
        self.topics.values().sum()
    }

    /// How many came more often than once, each time counted.
    pub(super) fn duplicates(&self) -> u64 {
        self.times.values().map(|times| times - 1).sum()
    }

    fn note(&mut self, topic: &str, payload: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Envelope {
            epoch: u64,
            seq: u64,
        }
        *self.topics.entry(topic.to_owned()).or_default() += 1;
        match serde_json::from_slice::<Envelope>(payload) {
            Ok(Envelope { epoch, seq }) => {
                *self.times.entry(RecordId { epoch, seq }).or_default() += 1
            }
            Err(_) => self.unreadable += 1,
        }
    }
}

/// A subscriber to everything.
pub(super) struct Observer {
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

impl Observer {
    /// Connects and subscribes; returns once the broker has confirmed that.
    pub(super) async fn start(
        broker: SocketAddr,
        id: &str,
        tls: rustls::ClientConfig,
    ) -> Result<Observer, Failure> {
        let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(15));
        options.set_max_packet_size(1024 * 1024, 1024 * 1024);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
            Arc::new(tls),
        )));
        let (client, mut events) = AsyncClient::new(options, 100);
        client.subscribe("#", QoS::AtLeastOnce).await?;
        let received = Arc::<Mutex<Received>>::default();
        let (ready, is_ready) = oneshot::channel();
        let task = tokio::spawn({
            let received = received.clone();
            async move {
                // The client must live as long as its events are read.
                let _client = client;
                let mut ready = Some(ready);
                loop {
                    match events.poll().await {
                        Ok(Event::Incoming(Packet::Publish(publish))) => {
                            let mut received =
                                received.lock().unwrap_or_else(PoisonError::into_inner);
                            received.note(&publish.topic, &publish.payload);
                        }
                        Ok(Event::Incoming(Packet::SubAck(_))) => {
                            // Nobody waits any more if the demonstration was given up meanwhile.
                            if let Some(ready) = ready.take() {
                                let _ = ready.send(Ok(()));
                            }
                        }
                        Ok(_) => {}
                        Err(error) => {
                            let mut received =
                                received.lock().unwrap_or_else(PoisonError::into_inner);
                            received.problem = Some(format!(
                                "the observer lost its connection to the cloud broker: {error}"
                            ));
                            if let Some(ready) = ready.take() {
                                let _ = ready.send(Err(error));
                            }
                            return;
                        }
                    }
                }
            }
        });
        let confirmed = tokio::time::timeout(Duration::from_secs(10), is_ready).await;
        confirmed.map_err(
            |_| "the cloud broker did not confirm the observer's subscription within 10 s",
        )???;
        Ok(Observer { received, task })
    }

    /// Why it does not see everything, if it does not.
    pub(super) fn problem(&self) -> Option<String> {
        self.received().problem
    }

    pub(super) fn received(&self) -> Received {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_their_duplicates() {
        let mut received = Received::default();
        for payload in [
            r#"{"epoch":1,"seq":1}"#,
            r#"{"epoch":1,"seq":2}"#,
            r#"{"epoch":1,"seq":1}"#,
            "?",
        ] {
            received.note("t", payload.as_bytes());
        }
        assert!(
            received.has(RecordId { epoch: 1, seq: 2 })
                && !received.has(RecordId { epoch: 1, seq: 3 })
        );
        assert_eq!(
            (
                received.messages(),
                received.duplicates(),
                received.unreadable
            ),
            (4, 1, 1)
        );
    }
}
