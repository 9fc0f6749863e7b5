//! What a bus thread reads: a part that is opened when it is needed, and given rest when it fails.
//!
//! Must not: block but in the part itself; hand on a value that the part cannot measure.

use std::time::Duration;

use super::part::{Chip, Quantity};
use super::scene::Scene;
use super::trouble::Trouble;
use super::{Sensor, SensorError};
use crate::message::{Text, Value};
use crate::runtime::clock::Now;

/// Failures in a row before a part is given rest.
const PATIENCE: u32 = 3;
/// The first rest; each further one is twice as long, up to the longest.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Opens a part anew.
pub(super) type Open = Box<dyn FnMut() -> Result<Box<dyn Chip>, Trouble> + Send>;

pub(super) struct Held {
    /// Which part, and where.
    name: String,
    quantities: Vec<Quantity>,
    fields: Vec<Text>,
    open: Open,
    chip: Option<Box<dyn Chip>>,
    /// What is around it, if it is simulated.
    scene: Option<Scene>,
    failures: u32,
    rests_until: Duration,
}

impl Held {
    pub(super) fn new(
        name: String,
        quantities: Vec<Quantity>,
        open: Open,
        scene: Option<Scene>,
    ) -> Held {
        let fields = quantities.iter().map(|it| (&*it.name).into()).collect();
        Held {
            name,
            quantities,
            fields,
            open,
            chip: None,
            scene,
            failures: 0,
            rests_until: Duration::ZERO,
        }
    }

    fn measure(&mut self) -> Result<Value, Trouble> {
        // Taken out, so that it is opened anew after a failure, a panic too.
        let mut chip = match self.chip.take() {
            Some(chip) => chip,
            None => (self.open)()?,
        };
        let values = match chip.measure() {
            // It works; there is only more than it can measure.
            Err(trouble @ Trouble::Saturated(_)) => {
                self.chip = Some(chip);
                return Err(trouble);
            }
            outcome => outcome?,
        };
        assert_eq!(
            values.len(),
            self.quantities.len(),
            "a part gives a value for each quantity"
        );
        let measured = self.quantities.iter().zip(values);
        let values = measured.map(|(quantity, value)| quantity.plausible(value).map(Value::Number));
        let mut values = values.collect::<Result<Vec<Value>, Trouble>>()?;
        self.chip = Some(chip);
        if values.len() == 1 {
            return Ok(values.remove(0));
        }
        Ok(Value::object(self.fields.iter().cloned().zip(values)))
    }

    fn trouble(&self, trouble: Trouble) -> SensorError {
        SensorError::new(&self.name, trouble)
    }
}

impl Sensor for Held {
    fn read(&mut self, now: Now) -> Result<Value, SensorError> {
        if let Some(again_in) = self.rests_until.checked_sub(now.mono)
            && !again_in.is_zero()
        {
            let failures = self.failures;
            return Err(self.trouble(Trouble::Resting { failures, again_in }));
        }
        if let Some(scene) = &self.scene {
            scene.set_now(now);
        }
        let mut outcome = self.measure();
        if outcome.as_ref().is_err_and(Trouble::may_pass) {
            outcome = self.measure();
        }
        match outcome {
            Ok(value) => {
                self.failures = 0;
                Ok(value)
            }
            // It answered, and is to be heard as soon as it can measure again.
            Err(trouble @ Trouble::Saturated(_)) => {
                self.failures = 0;
                Err(self.trouble(trouble))
            }
            Err(trouble) => {
                self.failures += 1;
                if self.failures >= PATIENCE {
                    let doubled = 1 << (self.failures - PATIENCE).min(16);
                    self.rests_until = now.mono + (FIRST_REST * doubled).min(LONGEST_REST);
                }
                Err(self.trouble(trouble))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::sensors::chain;

    const DEGC: Quantity = Quantity::new("temperature", "degC", (-40.0, 85.0), 2);
    const SHARE: Quantity = Quantity::new("humidity", "%", (0.0, 100.0), 1);

    type Answers = Vec<Result<Vec<f64>, Trouble>>;

    /// A part that gives these answers, one for each time it is asked, and how often it was opened.
    fn held(quantities: &[Quantity], answers: Answers) -> (Held, Arc<AtomicU32>) {
        let opened = Arc::<AtomicU32>::default();
        let answers = Arc::new(std::sync::Mutex::new(answers.into_iter()));
        let count = opened.clone();
        let open: Open = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let answers = answers.clone();
            let measure = move || answers.lock().unwrap().next().expect("an answer");
            Ok(Box::new(measure) as Box<dyn Chip>)
        });
        (
            Held::new("part".into(), quantities.to_vec(), open, None),
            opened,
        )
    }

    fn at(seconds: f64) -> Now {
        Now::default().later(Duration::from_secs_f64(seconds))
    }

    fn said(outcome: Result<Value, SensorError>) -> String {
        match outcome {
            Ok(value) => value.to_json(),
            Err(error) => chain(&error),
        }
    }

    #[test]
    fn one_quantity_is_a_number_and_more_are_an_object() {
        let (mut one, _) = held(&[DEGC], vec![Ok(vec![21.456_78])]);
        assert_eq!(said(one.read(at(0.0))), "21.46");
        let (mut two, _) = held(&[DEGC, SHARE], vec![Ok(vec![-0.001, 44.06])]);
        assert_eq!(
            said(two.read(at(0.0))),
            r#"{"temperature":0,"humidity":44.1}"#
        );
    }

    #[test]
    fn what_the_part_cannot_measure_is_an_error() {
        for (value, expected) in [
            (85.004, "85"),
            (-40.0, "-40"),
            (85.01, "85.01 degC cannot be: it measures -40 to 85 degC"),
            (f64::NAN, "NaN degC cannot be"),
            (f64::INFINITY, "inf degC cannot be"),
        ] {
            // Asked twice where a second try may help.
            let (mut part, _) = held(&[DEGC], vec![Ok(vec![value]), Ok(vec![value])]);
            let said = said(part.read(at(0.0)));
            assert!(said.contains(expected), "{value}: {said}");
        }
    }

    #[test]
    fn a_failure_that_may_pass_is_tried_again_once_with_the_part_opened_anew() {
        let wrong = || Err(Trouble::Checksum);
        let answers = vec![wrong(), Ok(vec![20.0]), wrong(), wrong(), Ok(vec![21.0])];
        let (mut part, opened) = held(&[DEGC], answers);
        assert_eq!(said(part.read(at(0.0))), "20");
        assert!(said(part.read(at(1.0))).contains("check sum"));
        assert_eq!(said(part.read(at(2.0))), "21");
        assert_eq!(opened.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_dead_part_is_given_longer_and_longer_rest_and_comes_back() {
        let dead = || {
            Err(Trouble::TimedOut {
                after: Duration::from_secs(1),
            })
        };
        let mut answers: Answers = (0..9).map(|_| dead()).collect();
        answers.push(Ok(vec![5.0]));
        let (mut part, opened) = held(&[DEGC], answers);
        let mut asked = Vec::new();
        for second in 0..200 {
            let before = opened.load(Ordering::Relaxed);
            let outcome = said(part.read(at(f64::from(second))));
            if opened.load(Ordering::Relaxed) > before {
                asked.push(second);
            } else {
                assert!(outcome.contains("again in"), "{outcome}");
            }
            if outcome == "5" {
                break;
            }
        }
        // Three at its own pace, then after 1, 2, 4, 8, 16, 32 and 60 s.
        assert_eq!(asked, [0, 1, 2, 3, 5, 9, 17, 33, 65, 125]);
        assert_eq!(part.failures, 0);
    }

    #[test]
    fn one_that_has_too_much_to_measure_is_neither_given_rest_nor_opened_anew() {
        let mut answers: Answers = (0..9)
            .map(|_| Err(Trouble::Saturated("too bright".into())))
            .collect();
        answers.push(Ok(vec![5.0]));
        let (mut part, opened) = held(&[DEGC], answers);
        for second in 0..9 {
            let said = said(part.read(at(f64::from(second))));
            assert!(said.contains("too bright"), "{said}");
        }
        assert_eq!(said(part.read(at(9.0))), "5");
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }
}
