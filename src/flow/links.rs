//! Links between the flows of a device: ways that lead back to where they began, and ends without the other one.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::flow::Graph;
use crate::flow::diagnostic::{Diagnostic, Report, Source, did_you_mean};
use crate::message::Text;
use crate::nodes::Link;

/// A way through links that leads back to where it began.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// The `link in` through which it comes into the flow that closes it.
    pub(super) span: Range<usize>,
    /// Its `link in`, `link out` and `catch` nodes in order, the first one at both ends.
    pub(super) way: String,
}

/// What leads from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    Wires,
    /// What a node cannot handle, to its `catch`, too.
    WiresAndFailures,
}

/// The cycle without a node that holds messages back which `new` makes together with flows that have none.
pub(super) fn cycle(flows: &[Arc<Graph>], new: &Graph, ways: Ways) -> Option<Cycle> {
    new.links().next()?;
    let flows: Vec<&Graph> = std::iter::once(new)
        .chain(flows.iter().map(Arc::as_ref))
        .collect();
    // All nodes, those of `new` first, then a place for each link.
    let nodes: Vec<_> = flows
        .iter()
        .flat_map(|flow| {
            flow.nodes()
                .iter()
                .map(|node| (*flow, node, node.spec.link()))
        })
        .collect();
    let mut targets: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    for flow in &flows {
        let first = targets.len();
        let nodes = flow.nodes().iter().zip(flow.watchers());
        targets.extend(nodes.map(|(node, watchers)| {
            let catches = match ways {
                Ways::Wires => &[],
                Ways::WiresAndFailures => &*watchers.of_failures,
            };
            let next = node.readers.iter().flatten().chain(catches);
            next.map(|id| usize::from(id.0))
                .filter(|next| !flow.nodes()[*next].spec.breaks_cycle())
                .map(|next| first + next)
                .collect()
        }));
    }
    let mut places = HashMap::new();
    for (node, (_, _, link)) in nodes.iter().enumerate() {
        let Some(Link::Out(name) | Link::In(name)) = link else {
            continue;
        };
        let place = *places.entry(name).or_insert_with(|| {
            targets.push(Vec::new());
            targets.len() - 1
        });
        match link {
            Some(Link::Out(_)) => targets[node].push(place),
            _ => targets[place].push(node),
        }
    }

    let mut way = find_cycle(&targets)?;
    let is_told = |node: &usize| {
        nodes
            .get(*node)
            .is_some_and(|(_, node, link)| link.is_some() || node.watching.is_some())
    };
    way.retain(is_told);
    let is_entry =
        |node: &usize| *node < new.nodes().len() && matches!(nodes[*node].2, Some(Link::In(_)));
    let entry = way.iter().position(is_entry)?;
    way.rotate_left(entry);
    way.push(way[0]);
    let names = way.iter().map(|node| {
        let (flow, node, _) = nodes[*node];
        format!("{}/{}", flow.name(), node.name)
    });
    Some(Cycle {
        span: nodes[way[0]].1.span.clone(),
        way: names.collect::<Vec<_>>().join(" -> "),
    })
}

/// The places on a cycle in order, if there is one: goes as far as it can, and back where there is nothing new.
fn find_cycle(targets: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy)]
    enum Seen {
        No,
        OnTheWay,
        LeadsNowhere,
    }
    let mut seen = vec![Seen::No; targets.len()];
    for start in 0..targets.len() {
        // Each place on the way, with how many of its targets have been looked at. Those of a start that was seen have been.
        let mut way = match seen[start] {
            Seen::No => vec![(start, 0)],
            _ => continue,
        };
        while let Some((place, looked_at)) = way.last_mut() {
            seen[*place] = Seen::OnTheWay;
            let Some(&target) = targets[*place].get(*looked_at) else {
                seen[*place] = Seen::LeadsNowhere;
                way.pop();
                continue;
            };
            *looked_at += 1;
            match seen[target] {
                Seen::No => way.push((target, 0)),
                Seen::OnTheWay => {
                    let on_cycle = way.iter().skip_while(|(place, _)| *place != target);
                    return Some(on_cycle.map(|(place, _)| *place).collect());
                }
                Seen::LeadsNowhere => {}
            }
        }
    }
    None
}

/// Links that have only one end, if these are all flows of the device. Each flow with its text.
pub(super) fn loose_ends(flows: &[Arc<Graph>], sources: &[Arc<Source>]) -> Vec<Diagnostic> {
    let all = flows.iter().flat_map(|flow| flow.links());
    let (mut outs, mut ins) = (BTreeSet::<Text>::new(), BTreeSet::<Text>::new());
    for (_, link) in all {
        match link {
            Link::Out(name) => outs.insert(name),
            Link::In(name) => ins.insert(name),
        };
    }
    let mut found = Vec::new();
    for (flow, source) in flows.iter().zip(sources) {
        let mut report = Report::over(source.clone());
        for (node, link) in flow.links() {
            let node = &flow.nodes()[usize::from(node.0)];
            let (name, others, problem, remedy) = match link {
                Link::Out(name) => (name, &ins, "no `link in` reads", "link in"),
                Link::In(name) => (name, &outs, "no `link out` sends to", "link out"),
            };
            if others.contains(&name) {
                continue;
            }
            let help = did_you_mean(&name, others.iter().map(AsRef::as_ref)).unwrap_or_else(|| {
                format!("its other end would be: type = \"{remedy}\", link = \"{name}\"")
            });
            report.warning(
                node.span.clone(),
                format!("{problem} the link `{name}`"),
                Some(help),
            );
        }
        found.extend(report.into_diagnostics());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::graph;
    use crate::nodes::{BuildError, Spec, Surroundings};
    use crate::runtime::Node;

    /// A node that holds back what comes.
    #[derive(Debug)]
    struct Holds;

    impl Spec for Holds {
        fn breaks_cycle(&self) -> bool {
            true
        }
        fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
            unreachable!("it is not run")
        }
    }

    /// From one link through the node `middle` to another one.
    fn flow(name: &str, from: &str, to: &str) -> Graph {
        let mut graph = Arc::into_inner(graph(&format!(
            "[nodes.come]\ntype = 'link in'\nlink = '{from}'\n[nodes.middle]\ntype = 'filter'\nfrom = 'come'\n\
             [nodes.go]\ntype = 'link out'\nfrom = 'middle'\nlink = '{to}'"
        )))
        .expect("nobody else has it");
        graph.rename(name);
        graph
    }

    fn way(flows: &[Arc<Graph>], new: &Graph) -> Option<String> {
        cycle(flows, new, Ways::Wires).map(|cycle| cycle.way)
    }

    #[test]
    fn a_way_back_is_found_through_any_number_of_flows() {
        let a = Arc::new(flow("a", "x", "y"));
        let b = Arc::new(flow("b", "y", "z"));
        let d = Arc::new(flow("d", "y", "nowhere"));
        let check = |others: &[Arc<Graph>], from: &str, to: &str, expected: Option<&str>| {
            let found = way(others, &flow("c", from, to));
            assert_eq!(found.as_deref(), expected, "{from} to {to}");
        };
        check(&[], "x", "y", None);
        check(&[], "x", "x", Some("c/come -> c/go -> c/come"));
        check(&[a.clone(), d.clone()], "z", "x", None);
        check(
            &[d.clone(), a.clone()],
            "y",
            "x",
            Some("c/come -> c/go -> a/come -> a/go -> c/come"),
        );
        check(
            &[d, a, b],
            "z",
            "x",
            Some("c/come -> c/go -> a/come -> a/go -> b/come -> b/go -> c/come"),
        );
    }

    #[test]
    fn a_node_that_holds_back_breaks_the_cycle() {
        let a = Arc::new(flow("a", "x", "y"));
        let mut back = flow("b", "y", "x");
        assert!(way(std::slice::from_ref(&a), &back).is_some());
        back.replace_spec("middle", Arc::new(Holds));
        assert_eq!(way(&[a], &back), None);
    }

    #[test]
    fn many_links_take_no_longer_than_there_are() {
        // Each of a thousand outs leads to each of a thousand ins.
        let many = |name: &str, from: &str, to: &str| {
            let ends = |number| {
                format!(
                    "[nodes.come{number}]\ntype = 'link in'\nlink = '{from}'\n\
                     [nodes.go{number}]\ntype = 'link out'\nfrom = 'come{number}'\nlink = '{to}'\n"
                )
            };
            let mut graph = Arc::into_inner(graph(&(0..1000).map(ends).collect::<String>()))
                .expect("nobody else has it");
            graph.rename(name);
            graph
        };
        let a = Arc::new(many("a", "x", "y"));
        let b = Arc::new(many("b", "y", "z"));
        let start = std::time::Instant::now();
        assert_eq!(way(&[a.clone(), b.clone()], &many("c", "z", "end")), None);
        let back = way(&[a, b], &many("c", "z", "x"));
        assert!(back.is_some_and(|way| way.matches("->").count() == 6));
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
