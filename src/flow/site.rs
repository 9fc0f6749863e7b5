//! All flows of a device: read, checked one by one, and checked against each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::board::Pin;
use crate::flow::diagnostic::{Diagnostic, Report, Severity};
use crate::flow::{Graph, Variables, check, directory};

/// The flows of a device and what is wrong with them.
#[derive(Debug, Default)]
pub struct Site {
    /// The valid ones, by name. Two that want the same pin are both valid as files, but only the first is here.
    pub flows: Vec<Arc<Graph>>,
    /// How many files there are.
    pub files: usize,
    pub diagnostics: Vec<Diagnostic>,
}

/// The place of the flows cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read flows from {}; check the path; without one it is `path` of [flows] in tidegate.toml", path.display())]
pub struct SiteError {
    path: PathBuf,
    source: std::io::Error,
}

impl Site {
    /// Reads and checks the flow file at `path`, or all in the directory there. A file that cannot be read is a problem
    /// like those in it.
    pub fn load(path: &Path, variables: impl Fn(&str) -> Variables) -> Result<Site, SiteError> {
        let mut site = Site::default();
        site.load_more(path, variables)?;
        Ok(site)
    }

    /// The same, beside the flows that are here already.
    pub fn load_more(
        &mut self,
        path: &Path,
        variables: impl Fn(&str) -> Variables,
    ) -> Result<(), SiteError> {
        let files = directory::find(path).map_err(|source| SiteError {
            path: path.into(),
            source,
        })?;
        for file in files {
            let name = directory::flow_name(&file);
            let (text, unreadable) = match std::fs::read_to_string(&file) {
                Ok(text) => (text, None),
                Err(error) => (String::new(), Some(error)),
            };
            let mut report = Report::new(file.display().to_string(), text);
            let graph = match unreadable {
                Some(error) => {
                    let help = (error.kind() == std::io::ErrorKind::InvalidData)
                        .then(|| "it is not in UTF-8: save it as UTF-8 in your editor".into());
                    report.error(0..0, format!("the file cannot be read: {error}"), help);
                    None
                }
                None => check(&name, &variables(&name), &mut report),
            };
            self.add(graph, report);
        }
        Ok(())
    }

    /// Checks flows given by name and text.
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
        variables: impl Fn(&str) -> Variables,
    ) -> Site {
        let mut site = Site::default();
        for (name, text) in texts {
            let mut report = Report::new(format!("{name}.toml"), text);
            let graph = check(name, &variables(name), &mut report);
            site.add(graph, report);
        }
        site
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    fn add(&mut self, graph: Option<Graph>, mut report: Report) {
        self.files += 1;
        if let Some(graph) = graph {
            match self.contested_pin(&graph) {
                Some((pin, other)) => {
                    let message = format!(
                        "{pin} is used by flow `{other}` already, so this flow does not run"
                    );
                    let help = "each pin belongs to one node; let one flow use it";
                    report.error(0..0, message, Some(help.into()));
                }
                None => self.flows.push(Arc::new(graph)),
            }
        }
        self.diagnostics.extend(report.into_diagnostics());
    }

    fn contested_pin(&self, graph: &Graph) -> Option<(Pin, String)> {
        let users: HashMap<Pin, &Graph> = self
            .flows
            .iter()
            .flat_map(|flow| {
                flow.uses()
                    .filter_map(|(_, needed)| Some((needed.pin()?, &**flow)))
            })
            .collect();
        graph.uses().find_map(|(_, needed)| {
            let pin = needed.pin()?;
            users.get(&pin).map(|other| (pin, other.name().to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_flows_cannot_share_a_pin_and_the_first_keeps_it() {
        let flow = "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = 'door'\n";
        let site = Site::from_texts([("a", flow), ("b", flow)], |_| Variables::default());
        assert_eq!(site.flows.len(), 1);
        assert_eq!(
            site.diagnostics
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            [
                "b.toml:1:1: error: GPIO22 is used by flow `a` already, so this flow does not run \
              (each pin belongs to one node; let one flow use it)"
            ]
        );
    }

    #[test]
    fn a_directory_gives_its_flows_and_not_their_tests() {
        let directory = tempfile::tempdir().expect("a directory");
        let flow = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n";
        for name in [
            "b.toml",
            "a.toml",
            "a.test.toml",
            "notes.md",
            ".hidden.toml",
        ] {
            std::fs::write(directory.path().join(name), flow).expect("it can be written");
        }
        std::fs::write(directory.path().join("c.toml"), [0xff, 0xfe]).expect("it can be written");
        let site = Site::load(directory.path(), |_| Variables::default()).expect("it can be read");
        let names: Vec<_> = site
            .flows
            .iter()
            .map(|flow| flow.name().to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            site.diagnostics[0].message.contains("cannot be read"),
            "{:?}",
            site.diagnostics
        );
        assert!(Site::load(&directory.path().join("none"), |_| Variables::default()).is_err());
    }
}
