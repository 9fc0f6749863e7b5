//! The witness at the broker: an MQTT client of its own, which notes which records arrive and how often.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use rustls::pki_types::UnixTime;
use serde_json::Value as Json;
use tidegate::uplink::{Files, tls};

use super::until;
use crate::SOON;

/// The id in the witness' certificate.
pub(crate) const WITNESS: &str = "witness";

/// How often each record came, by epoch and seq.
pub(crate) type Received = BTreeMap<(u64, u64), u64>;

pub(crate) struct Witness {
    received: Arc<Mutex<Received>>,
    client: Client,
}

impl Witness {
    /// Connects with the certificate `witness` in `tls_directory`, subscribes to everything, and returns once the broker
    /// has confirmed that.
    pub(crate) fn at(broker: SocketAddr, tls_directory: &Path) -> Witness {
        let files = Files::new(
            tls_directory.join("ca.pem"),
            tls_directory.join(format!("{WITNESS}.pem")),
            tls_directory.join(format!("{WITNESS}.key")),
        );
        let tls = tls::load(&files, UnixTime::now()).unwrap();
        let mut options = MqttOptions::new(WITNESS, broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(60));
        options.set_max_packet_size(1024 * 1024, 1024 * 1024);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::from(tls)));
        let (client, mut connection) = Client::new(options, 100);
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        let received = Arc::<Mutex<Received>>::default();
        let (subscribed, is_subscribed) = mpsc::channel();
        std::thread::spawn({
            let received = received.clone();
            move || {
                for event in connection.iter() {
                    match event {
                        Ok(Event::Incoming(Packet::Publish(publish))) => {
                            let id = id_in(&publish.payload);
                            *received.lock().unwrap().entry(id).or_default() += 1;
                        }
                        Ok(Event::Incoming(Packet::SubAck(_))) => subscribed.send(()).unwrap(),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
            }
        });
        is_subscribed
            .recv_timeout(SOON)
            .expect("the broker lets the witness subscribe");
        Witness { received, client }
    }

    pub(crate) fn received(&self) -> Received {
        self.received.lock().unwrap().clone()
    }

    /// Waits until these records of an epoch have come, each at least once.
    #[track_caller]
    pub(crate) fn sees(&self, epoch: u64, seqs: RangeInclusive<u64>) {
        until(&format!("records {epoch}/{seqs:?} have come"), || {
            let received = self.received.lock().unwrap();
            let missing = seqs
                .clone()
                .find(|seq| !received.contains_key(&(epoch, *seq)));
            missing.is_none().then_some(())
        });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Its broker may have gone before it.
        let _ = self.client.disconnect();
    }
}

/// The epoch and the seq in an envelope.
pub(crate) fn id_in(payload: &[u8]) -> (u64, u64) {
    let envelope: Json = serde_json::from_slice(payload).expect("a record in the JSON envelope");
    let number = |key: &str| {
        envelope[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {envelope}"))
    };
    (number("epoch"), number("seq"))
}
