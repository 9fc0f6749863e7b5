//! Which tests there are, and running them side by side.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::check::{Beside, check};
use super::run::{Outcome, run};
use super::test::Test;
use crate::flow::diagnostic::{Diagnostic, Report};
use crate::flow::{Site, Variables, directory};

/// How test files end; what stands before is the flow's name.
const ENDING: &str = ".test.toml";

/// The tests of some flows.
#[derive(Debug, Default)]
pub struct Suite {
    pub tests: Vec<Test>,
    pub findings: Vec<Finding>,
    /// Flows without a test file.
    pub untested: Vec<PathBuf>,
    /// How many flows there are.
    pub flows: usize,
}

/// What keeps tests from being run.
#[derive(Debug)]
pub struct Finding {
    /// The flow.
    pub flow: String,
    pub diagnostics: Vec<Diagnostic>,
}

/// Tests could not be found.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    #[error("cannot read {}; check the path", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{} is the test of a flow that is not there: {} would be the flow", test.display(), flow.display()
    )]
    NoFlow { test: PathBuf, flow: PathBuf },
}

impl Suite {
    /// Reads and checks the tests of a flow file, of a test file, or of all flows in a directory. Each flow is looked at once.
    pub fn load(paths: &[PathBuf]) -> Result<Suite, SuiteError> {
        let mut flows = Vec::new();
        let mut known = HashSet::new();
        for path in paths {
            for flow in flows_at(path)? {
                // `a.toml` is `./a.toml`.
                if known.insert(flow.canonicalize().unwrap_or_else(|_| flow.clone())) {
                    flows.push(flow);
                }
            }
        }
        let mut suite = Suite {
            flows: flows.len(),
            ..Suite::default()
        };
        for flow in flows {
            suite.add(flow)?;
        }
        Ok(suite)
    }

    fn add(&mut self, flow: PathBuf) -> Result<(), SuiteError> {
        let name = directory::flow_name(&flow);
        let mut site = Site::default();
        // What cannot be read of the flow is among its diagnostics.
        let _ = site.load_more(&flow, |_| Variables::default());
        let is_flow_valid = site.flows.len() == 1;
        let mut diagnostics = site.diagnostics;
        // Warnings are the business of `tidegate check`.
        diagnostics.retain(Diagnostic::is_error);
        let directory = flow.parent().unwrap_or(Path::new("")).to_owned();
        let file = directory.join(format!("{name}{ENDING}"));
        // One that cannot be read, such as a link to nowhere, is not none.
        if file.symlink_metadata().is_ok() {
            let (text, unreadable) = match std::fs::read_to_string(&file) {
                Ok(text) => (text, None),
                Err(error) => (String::new(), Some(error)),
            };
            let mut report = Report::new(file.display().to_string(), text);
            if let Some(error) = unreadable {
                report.error(0..0, format!("the file cannot be read: {error}"), None);
            } else {
                let beside = Beside { directory, flow };
                let tests = check(&beside, is_flow_valid, &mut report);
                self.tests.extend(tests);
            }
            diagnostics.extend(report.into_diagnostics());
        } else {
            self.untested.push(flow);
        }
        if !diagnostics.is_empty() {
            self.findings.push(Finding {
                flow: name,
                diagnostics,
            });
        }
        Ok(())
    }

    /// Leaves the tests whose full name, `FLOW/TEST`, has this in it.
    pub fn keep_only(&mut self, part: &str) {
        self.tests.retain(|test| test.full_name().contains(part));
    }

    /// Runs all tests on as many threads as there are cores. The outcomes are in the order of the tests.
    pub fn run(&self) -> Vec<Outcome> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::new());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.tests.len()) {
                scope.spawn(|| {
                    while let Some((place, test)) = {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        self.tests.get(place).map(|test| (place, test))
                    } {
                        let start = Instant::now();
                        let mut outcome = run(test);
                        outcome.took = start.elapsed();
                        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                        outcomes.push((place, outcome));
                    }
                });
            }
        });
        let mut outcomes = outcomes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|(place, _)| *place);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// The flow files that a path means.
fn flows_at(path: &Path) -> Result<Vec<PathBuf>, SuiteError> {
    if let Some(flow) = flow_of_test(path) {
        return if flow.is_file() {
            Ok(vec![flow])
        } else {
            let test = path.to_owned();
            Err(SuiteError::NoFlow { test, flow })
        };
    }
    let unreadable = |source| SuiteError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let flows = directory::find(path).map_err(unreadable)?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let test = entry.map_err(unreadable)?.path();
            if let Some(flow) = flow_of_test(&test)
                && !flow.is_file()
            {
                return Err(SuiteError::NoFlow { test, flow });
            }
        }
    }
    Ok(flows)
}

/// The flow beside a test file, if the path is one.
fn flow_of_test(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    let is_hidden = name.is_empty() || name.starts_with('.');
    (!is_hidden).then(|| path.with_file_name(format!("{name}.toml")))
}

impl Finding {
    /// Whether it keeps tests from being run; else it is worth a look.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}
