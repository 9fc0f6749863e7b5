//! Changes the flows of a running driver: all of a change, or none of it.
//!
//! Terms: a flow *moves* when it gains or loses its outputs, and so goes to the other engine.
//!
//! Must not: be called by an engine thread, for it waits for both.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::watch;

use super::changes::{
    Change, Changed, Inputs, Leaving, NotBuilt, Prepare, Prepared, Request, Takes,
};
use super::inputs::ArmedInput;
use super::sensors::{Attached, SensorThreads};
use super::subscribing::Subscriptions;
use super::taps::Taps;
use super::wiring::{Placed, Side, WantedSensor, routes, wanted_inputs, wanted_sensors};
use super::{ThreadError, chain};
use crate::board::BoardError;
use crate::flow::Graph;
use crate::message::NodeId;
use crate::runtime::clock::Now;
use crate::runtime::engine::{Event, Kept, Swap, heirs};
use crate::runtime::links::{self, Ends};
use crate::runtime::node::Address;
use crate::runtime::state::{Checkpoint, Pause};
use crate::sensors::{Sensor, SensorSpec};

/// The flows of a running driver, to be changed. Clones change the same ones.
#[derive(Clone)]
pub struct Flows(Arc<Mutex<Layout>>);

/// A flow that is to run.
pub struct NewFlow {
    /// It takes the place of the flow of its name, if that runs.
    pub graph: Arc<Graph>,
    /// What it goes on from, if none of its name runs.
    pub remembered: Option<Arc<Checkpoint>>,
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("flow `{flow}` cannot be built: {problem}; is memory short?")]
    NotBuilt { flow: String, problem: String },
    #[error(transparent)]
    Thread(#[from] ThreadError),
    #[error("the flows are stopping")]
    Stopping,
}

/// What runs, and what it is connected to.
pub(super) struct Layout {
    pub(super) flows: Vec<Placed>,
    pub(super) inputs: Vec<ArmedInput>,
    pub(super) sensors: Vec<Attached>,
    pub(super) threads: SensorThreads,
    pub(super) subscriptions: Box<dyn Subscriptions>,
    /// The ways to both engines for what brokers bring.
    pub(super) readings: [Sender<Event>; 2],
    /// Control, data.
    pub(super) engines: [Sender<Request>; 2],
    pub(super) taps: Taps,
    pub(super) prints: watch::Sender<Prints>,
}

/// For each flow that runs, what tells its file from others: the CRC-32 of the text, in hexadecimal digits.
pub type Prints = BTreeMap<String, String>;

pub(super) fn prints(flows: &[Placed]) -> Prints {
    let flows = flows.iter().map(|flow| &flow.graph);
    flows
        .map(|graph| (graph.name().to_string(), format!("{:08x}", graph.print())))
        .collect()
}

impl Flows {
    pub(super) fn new(layout: Layout) -> Flows {
        Flows(Arc::new(Mutex::new(layout)))
    }

    /// Puts flows in the places of those of the same name, and adds the others. Between two events of each engine, with what the old
    /// ones remembered; nothing that is on its way is lost. After an error everything is as it was. Waits for the engines.
    pub fn put(&self, flows: Vec<NewFlow>) -> Result<(), ChangeError> {
        self.layout().put(flows)
    }

    /// The names of the flows.
    pub fn names(&self) -> Vec<String> {
        let layout = self.layout();
        let names = layout.flows.iter().map(|flow| flow.graph.name());
        names.map(ToString::to_string).collect()
    }

    /// The flows that run, as they change.
    pub fn prints(&self) -> watch::Receiver<Prints> {
        self.layout().prints.subscribe()
    }

    /// Ends the sensor threads, once the engines have ended.
    pub(super) fn stop(&self) {
        let mut layout = self.layout();
        let none = SensorThreads::new(layout.threads.clock());
        let threads = std::mem::replace(&mut layout.threads, none);
        layout.sensors.clear();
        layout.subscriptions.stop();
        drop(layout);
        threads.stop();
    }

    fn layout(&self) -> MutexGuard<'_, Layout> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change that is being made.
struct Plan {
    /// All flows after it, by name. The places of new ones are not known before both engines are prepared.
    flows: Vec<Placed>,
    news: Vec<News>,
}

/// One flow of a change.
struct News {
    /// Its place among the plan's flows.
    at: usize,
    /// What it takes the place of.
    old: Option<Placed>,
    remembered: Option<Arc<Checkpoint>>,
}

impl Plan {
    fn new_at(&self, side: Side) -> impl Iterator<Item = (&News, &Placed)> {
        let news = self.news.iter().map(|news| (news, &self.flows[news.at]));
        news.filter(move |(_, flow)| flow.side == side)
    }

    fn graphs(&self, side: Side) -> Vec<Arc<Graph>> {
        let news = self.new_at(side);
        news.map(|(_, flow)| flow.graph.clone()).collect()
    }

    /// Flows that leave an engine for the other one: as they are there, and as they will be.
    fn leaving(&self, side: Side) -> impl Iterator<Item = (&Placed, &Placed)> {
        self.new_at(side.other())
            .filter_map(move |(news, new)| match &news.old {
                Some(old) if old.side == side => Some((old, new)),
                _ => None,
            })
    }

    fn set_places(&mut self, side: Side, places: &[u32]) {
        let mut places = places.iter();
        for news in &self.news {
            let flow = &mut self.flows[news.at];
            if flow.side == side {
                flow.place = *places.next().expect("a place for each graph");
            }
        }
    }

    /// A clock that began anew, because nothing was known of another one, does not reach the deadlines of that one for long.
    fn forget_later_times(&mut self, now: Now) {
        for news in &mut self.news {
            let is_later = |it: &mut Arc<Checkpoint>| it.mono > now.mono;
            if news.old.is_none()
                && let Some(later) = news.remembered.take_if(is_later)
            {
                tracing::warn!(
                    "flow `{}` begins anew: what it remembered is of a clock that is ahead of this start's",
                    later.flow
                );
            }
        }
    }

    fn flows_at(&self, side: Side) -> impl Iterator<Item = &Placed> {
        self.flows.iter().filter(move |flow| flow.side == side)
    }

    fn ends(&self, side: Side) -> Arc<Ends> {
        let flows = self.flows_at(side);
        Arc::new(links::ends(flows.map(|flow| (flow.place, &*flow.graph))))
    }

    /// What is swapped in an engine: those that leave it first. `brought` is what those remember that come from the other one.
    fn swaps(&self, side: Side, brought: &[Kept]) -> Vec<Swap> {
        let mut swaps: Vec<Swap> = self
            .leaving(side)
            .map(|(old, new)| Swap {
                old: Some(old.place),
                goes_to: Some((new.place, heirs(&old.graph, &new.graph))),
                ..Swap::default()
            })
            .collect();
        let mut brought = brought.iter().cloned();
        swaps.extend(self.new_at(side).map(|(news, new)| {
            let is_here = |old: &&Placed| old.side == side;
            let brings = match &news.old {
                Some(old) if old.side != side => brought.next().unwrap_or_default(),
                Some(_) => Kept::default(),
                None => Kept {
                    state: news.remembered.clone().map(|it| (it, Pause::Restart)),
                },
            };
            Swap {
                old: news.old.as_ref().filter(is_here).map(|old| old.place),
                new: Some(new.place),
                brings,
                goes_to: None,
            }
        }));
        swaps
    }
}

impl Layout {
    fn put(&mut self, news: Vec<NewFlow>) -> Result<(), ChangeError> {
        let mut plan = self.plan(news);
        plan.forget_later_times(self.threads.clock().now());
        let missing = self.missing_sensors(&plan);

        let control = self.prepare(Side::Control, &plan, missing, None)?;
        let (change, inbox) = bounded(1);
        // From here on data stands still, until it gets its change or `change` is dropped.
        let changed = self
            .prepare(Side::Data, &plan, Vec::new(), Some(inbox))
            .and_then(|data| {
                plan.set_places(Side::Control, &control.places);
                plan.set_places(Side::Data, &data.places);
                let opened = control.sensors;
                let sensors = self.attach_sensors(&plan, opened)?;
                let changed = self.change_control(&plan, data, &sensors)?;
                Ok((changed, sensors))
            });
        let (changed, sensors) = match changed {
            Ok(changed) => changed,
            Err(error) => {
                let give_up = Request::GiveUp(control.places);
                // If it has ended, there is nothing to give up.
                let _ = self.engines[Side::Control.index()].send(give_up);
                return Err(error);
            }
        };
        self.change_data(&plan, change, &changed, &sensors)?;
        self.inputs = changed.inputs.into_iter().map(|(_, input)| input).collect();
        self.sensors = sensors.into_iter().map(|(_, _, sensor)| sensor).collect();
        self.threads.keep_for(&self.sensors);
        self.flows = plan.flows;
        self.prints.send_replace(prints(&self.flows));
        let routes = routes(&self.flows, &self.readings);
        self.subscriptions.set(routes);
        for side in Side::BOTH {
            let flows = self.flows.iter().filter(|flow| flow.side == side);
            let flows = flows.map(|flow| (flow.place, flow.graph.clone()));
            self.taps.set_flows(side.index(), flows.collect());
        }
        Ok(())
    }

    fn plan(&self, news: Vec<NewFlow>) -> Plan {
        let mut flows: BTreeMap<&str, Placed> = BTreeMap::new();
        for flow in &self.flows {
            flows.insert(flow.graph.name(), flow.clone());
        }
        let mut by_name = BTreeMap::new();
        for NewFlow { graph, remembered } in &news {
            let placed = Placed {
                side: Side::of(graph),
                place: 0,
                graph: graph.clone(),
            };
            let name: &str = graph.name();
            let old = flows.insert(name, placed);
            // Of two of the same name, which nobody asks for, the last one counts.
            let old = by_name
                .remove(name)
                .map_or(old, |(old, _): (Option<Placed>, _)| old);
            by_name.insert(name, (old, remembered.clone()));
        }
        let news = flows.keys().enumerate().filter_map(|(at, name)| {
            let (old, remembered) = by_name.remove(name)?;
            Some(News {
                at,
                old,
                remembered,
            })
        });
        Plan {
            news: news.collect(),
            flows: flows.into_values().collect(),
        }
    }

    /// Sensors that are wanted and not open yet, in the order in which they are wanted.
    fn missing_sensors(&self, plan: &Plan) -> Vec<SensorSpec> {
        let mut open: Vec<&SensorSpec> = self.sensors.iter().map(|open| &open.spec).collect();
        let mut missing = Vec::new();
        for wanted in wanted_sensors(&plan.flows) {
            match open.iter().position(|open| **open == wanted.spec) {
                Some(place) => drop(open.swap_remove(place)),
                None => missing.push(wanted.spec),
            }
        }
        missing
    }

    fn prepare(
        &self,
        side: Side,
        plan: &Plan,
        sensors: Vec<SensorSpec>,
        change: Option<Receiver<Change>>,
    ) -> Result<Prepared, ChangeError> {
        // Control hands its own over when it changes, for it does not stand still until then.
        let leaving = match side {
            Side::Control => Vec::new(),
            Side::Data => plan.leaving(side).map(|(old, _)| old.place).collect(),
        };
        let (reply, answer) = bounded(1);
        let prepare = Prepare {
            graphs: plan.graphs(side),
            sensors,
            leaving,
            reply,
            change,
        };
        self.ask(side, Request::Prepare(prepare))?;
        match answer.recv() {
            Ok(Ok(prepared)) => Ok(prepared),
            Ok(Err(NotBuilt { flow, problem })) => Err(ChangeError::NotBuilt { flow, problem }),
            Err(_) => Err(ChangeError::Stopping),
        }
    }

    fn ask(&self, side: Side, request: Request) -> Result<(), ChangeError> {
        let requests = &self.engines[side.index()];
        requests.send(request).map_err(|_| ChangeError::Stopping)
    }

    /// Gives each node its sensor: one that is open already, or the next of those that were opened. What cannot be had is logged; its
    /// node fails when it asks.
    fn attach_sensors(
        &mut self,
        plan: &Plan,
        opened: Vec<Result<Box<dyn Sensor>, BoardError>>,
    ) -> Result<Vec<(Side, Address, Attached)>, ChangeError> {
        let wanted = wanted_sensors(&plan.flows);
        let sensors = attach(&mut self.threads, &self.sensors, wanted, opened)?;
        Ok(sensors)
    }

    fn change_control(
        &self,
        plan: &Plan,
        data: Prepared,
        sensors: &[(Side, Address, Attached)],
    ) -> Result<Changed, ChangeError> {
        let side = Side::Control;
        let brought: Vec<Kept> = data.leaving.iter().map(|it| it.kept.clone()).collect();
        let takes = data.queues.map(|(edges, linked)| Takes {
            edges,
            linked,
            moved: moved(plan, &data.leaving),
        });
        let (reply, answer) = bounded(1);
        let inputs = Inputs::Arm {
            armed: self.inputs.clone(),
            wanted: wanted_inputs(&plan.flows),
        };
        let change = Change {
            first: Vec::new(),
            takes,
            ..self.change(side, plan, &brought, sensors, inputs, reply)
        };
        self.ask(side, Request::Change(Box::new(change)))?;
        answer.recv().map_err(|_| ChangeError::Stopping)
    }

    fn change_data(
        &self,
        plan: &Plan,
        to_data: Sender<Change>,
        changed: &Changed,
        sensors: &[(Side, Address, Attached)],
    ) -> Result<(), ChangeError> {
        let side = Side::Data;
        // Those that leave control are its first swaps.
        let left = plan.leaving(Side::Control).count().min(changed.kept.len());
        let inputs = changed.inputs.iter().filter(|(of, _)| *of == side);
        let inputs = Inputs::Armed(inputs.map(|(_, input)| input.clone()).collect());
        let (reply, answer) = bounded(1);
        let change = Change {
            first: changed.for_other.clone(),
            takes: None,
            ..self.change(side, plan, &changed.kept[..left], sensors, inputs, reply)
        };
        to_data.send(change).map_err(|_| ChangeError::Stopping)?;
        // If data has ended, this is what keeps the answer's other end.
        drop(to_data);
        answer.recv().map_err(|_| ChangeError::Stopping)?;
        Ok(())
    }

    fn change(
        &self,
        side: Side,
        plan: &Plan,
        brought: &[Kept],
        sensors: &[(Side, Address, Attached)],
        inputs: Inputs,
        reply: Sender<Changed>,
    ) -> Change {
        let flows = plan.flows_at(side);
        let own = sensors.iter().filter(|(of, ..)| *of == side);
        Change {
            swaps: plan.swaps(side, brought),
            flows: flows.map(|flow| (flow.place, flow.graph.clone())).collect(),
            sensors: own
                .map(|(_, node, sensor)| (*node, sensor.clone()))
                .collect(),
            inputs,
            ends: Side::BOTH.map(|side| plan.ends(side)),
            first: Vec::new(),
            takes: None,
            reply,
        }
    }
}

/// By each place that leads to a flow which leaves data: its place in control, and that of each node.
fn moved(plan: &Plan, leaving: &[Leaving]) -> HashMap<u32, (u32, Vec<Option<NodeId>>)> {
    let mut moved = HashMap::new();
    for ((old, new), leaving) in plan.leaving(Side::Data).zip(leaving) {
        let there = heirs(&old.graph, &new.graph);
        for (place, nodes) in &leaving.leading_here {
            let nodes = nodes.iter().map(|node| there[usize::from((*node)?.0)]);
            moved.insert(*place, (new.place, nodes.collect()));
        }
    }
    moved
}

/// See [`Layout::attach_sensors`].
pub(super) fn attach(
    threads: &mut SensorThreads,
    open: &[Attached],
    wanted: Vec<WantedSensor>,
    opened: Vec<Result<Box<dyn Sensor>, BoardError>>,
) -> Result<Vec<(Side, Address, Attached)>, ThreadError> {
    let mut open: Vec<&Attached> = open.iter().collect();
    let mut opened = opened.into_iter();
    let mut attached = Vec::new();
    for WantedSensor {
        side,
        node,
        spec,
        name,
    } in wanted
    {
        let sensor = match open.iter().position(|open| open.spec == spec) {
            Some(place) => open.swap_remove(place).clone(),
            None => match opened.next() {
                Some(Ok(sensor)) => threads.attach(&spec, sensor)?,
                Some(Err(error)) => {
                    tracing::error!("{name}: {}", chain(&error));
                    continue;
                }
                None => continue,
            },
        };
        attached.push((side, node, sensor));
    }
    Ok(attached)
}
