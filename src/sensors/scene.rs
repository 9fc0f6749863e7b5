//! What is around a simulated sensor.

use std::sync::{Arc, Mutex, PoisonError};

use crate::runtime::clock::Now;

/// Something physical that a twin may measure, in the unit given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Physical {
    /// degC, in the cold store.
    Temperature,
    /// %, relative.
    Humidity,
    /// hPa.
    Pressure,
    /// V.
    Voltage,
    /// A.
    Current,
    /// m/s^2 along an axis, 0 to 2 for x, y and z; z points up.
    Acceleration(u8),
    /// deg/s about an axis, 0 to 2.
    Rotation(u8),
    /// ppm of carbon dioxide.
    Co2,
    /// lx.
    Light,
    /// m to what is in front.
    Distance,
    /// kg on a scale.
    Weight,
    /// ug/m3 of particles of up to 2.5 um.
    Particles,
    /// %, how much of something there is: load, use, signal.
    Share,
    /// s since it began.
    Uptime,
}

/// Where the values come from. The same questions get the same answers.
pub trait World: Send + Sync {
    /// `name` is whose reading it is, so that two sensors do not have the same noise.
    fn value(&self, physical: Physical, name: &str, now: Now) -> f64;
}

/// What one simulated sensor sees of the world. Clones see the same, at the same time.
#[derive(Clone)]
pub struct Scene {
    world: Arc<dyn World>,
    name: Arc<str>,
    now: Arc<Mutex<Now>>,
}

impl Scene {
    pub fn new(world: Arc<dyn World>, name: &str) -> Scene {
        Scene {
            world,
            name: name.into(),
            now: Arc::default(),
        }
    }

    /// A scene in which each quantity has a fixed value.
    #[cfg(test)]
    pub(super) fn still(values: &[(Physical, f64)]) -> Scene {
        struct Still(std::collections::HashMap<Physical, f64>);
        impl World for Still {
            fn value(&self, physical: Physical, _: &str, _: Now) -> f64 {
                self.0[&physical]
            }
        }
        Scene::new(Arc::new(Still(values.iter().copied().collect())), "still")
    }

    pub(super) fn set_now(&self, now: Now) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub fn value(&self, physical: Physical) -> f64 {
        let now = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.world.value(physical, &self.name, now)
    }
}
