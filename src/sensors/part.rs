//! What a part is made of: what it measures, where it can be, how it is read, and its simulated twin.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::place::Place;
use super::scene::Scene;
use super::trouble::Trouble;

/// What is read from a node's table.
pub trait Options:
    DeserializeOwned + JsonSchema + fmt::Debug + Clone + PartialEq + Send + Sync + 'static
{
}

impl<T> Options for T where
    T: DeserializeOwned + JsonSchema + fmt::Debug + Clone + PartialEq + Send + Sync + 'static
{
}

/// A kind of sensor. The struct has the options that only this part has; its documentation is the node type's.
pub trait Part: Options {
    /// Where it can be, and the options of that.
    type Place: Place;
    /// The node type.
    const NAME: &'static str;
    const ABOUT: About;
    /// A flow file that shows it at work.
    const EXAMPLE: &'static str;

    /// What is wrong with the options, beyond what their types tell: the option, and what.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What a reading has with these options, in the order of [`Chip::measure`].
    fn quantities(&self) -> Vec<Quantity> {
        Self::ABOUT.quantities.to_vec()
    }

    /// How long a reading takes at most with these options, in milliseconds.
    fn takes_ms(&self) -> u64 {
        Self::ABOUT.takes_ms
    }

    /// Makes sure that it is there and prepares it.
    fn open(&self, link: <Self::Place as Place>::Link) -> Result<Box<dyn Chip>, Trouble>;

    /// A simulated one.
    fn twin(&self, scene: Scene) -> <Self::Place as Place>::Twin;
}

/// An open part.
pub trait Chip: Send {
    /// Takes a reading: a value for each quantity, in its unit. Blocks for as long as the part takes.
    fn measure(&mut self) -> Result<Vec<f64>, Trouble>;
}

/// A function that takes readings.
impl<F: FnMut() -> Result<Vec<f64>, Trouble> + Send> Chip for F {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        self()
    }
}

/// What people ask of a part before they buy or wire it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Maker and name.
    pub title: &'static str,
    /// What it measures, as of a part with its usual options.
    pub quantities: &'static [Quantity],
    /// The 7-bit addresses that it can have on I2C, the usual one first.
    pub addresses: &'static [u8],
    /// Each of its terminals and where it goes.
    pub wiring: &'static [(&'static str, &'static str)],
    /// What the system needs, such as an overlay, in Markdown.
    pub setup: &'static str,
    /// What else one should know: accuracy, warming up, traps.
    pub notes: &'static str,
    /// The document that constants and formulas are from, with its revision.
    pub data_sheet: &'static str,
    /// How long a reading takes at most, in milliseconds: it is not asked for more often.
    pub takes_ms: u64,
}

/// Something that is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// The field of the reading; of some parts the flow names it.
    pub name: Cow<'static, str>,
    pub unit: Cow<'static, str>,
    /// The least and the greatest value that the part can give; anything else is an error.
    pub range: (f64, f64),
    /// Decimals of the reading; more would be noise.
    pub decimals: u8,
}

/// From here on a double has no digits behind the point: 2^53.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

impl Quantity {
    pub const fn new(
        name: &'static str,
        unit: &'static str,
        range: (f64, f64),
        decimals: u8,
    ) -> Quantity {
        Quantity {
            name: Cow::Borrowed(name),
            unit: Cow::Borrowed(unit),
            range,
            decimals,
        }
    }

    /// The value without noise, if it can be true.
    pub(super) fn plausible(&self, value: f64) -> Result<f64, Trouble> {
        let scale = 10_f64.powi(self.decimals.into());
        let scaled = value * scale;
        // A number this large has no such decimals, and to scale it would only change its last digits.
        let rounded = if scaled.abs() < LARGEST_EXACT {
            scaled.round() / scale
        } else {
            value
        };
        let (low, high) = self.range;
        if (low..=high).contains(&rounded) {
            // Without a sign at zero.
            return Ok(rounded + 0.0);
        }
        Err(Trouble::Impossible {
            quantity: self.name.clone(),
            value,
            unit: self.unit.clone(),
            low,
            high,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_loses_its_noise_and_no_more() {
        let check = |decimals: u8, value: f64, expected: f64| {
            let all = (f64::MIN, f64::MAX);
            let quantity = Quantity::new("energy", "kWh", all, decimals);
            assert_eq!(quantity.plausible(value).unwrap(), expected, "{value}");
        };
        check(1, 2301.0 * 0.1, 230.1);
        check(0, 4_294_967_295.0, 4_294_967_295.0);
        check(9, 9_007_199_254_740_991.0, 9_007_199_254_740_991.0);
        check(9, 1e300, 1e300);
    }
}
