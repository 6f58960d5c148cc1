//! How objects wait for each other: what has to run before one is started, and what has to have ended
//! before one is stopped when all are.

use super::known::Known;
use super::{Inputs, Record, Wish};
use crate::spec::{Dependency, DependencyCondition, Object, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

/// Answers about the objects of a round.
pub(super) struct Order<'a> {
    inputs: Inputs<'a>,
    /// In order of their ids.
    objects: &'a [Known<'a>],
}

impl<'a> Order<'a> {
    /// `objects` are all of the round, in order.
    pub(super) fn new(inputs: Inputs<'a>, objects: &'a [Known<'a>]) -> Self {
        Self { inputs, objects }
    }

    fn known(&self, id: &ObjectId) -> Option<&Known<'a>> {
        let found = self.objects.binary_search_by(|known| (*known.id).cmp(id));
        found.ok().map(|index| &self.objects[index])
    }

    fn runs(&self, id: &ObjectId) -> bool {
        self.known(id).is_some_and(Known::runs)
    }

    /// What the object has to wait for before it is started, as a clause; `None`: nothing.
    pub(super) fn unmet(&self, object: &Object) -> Option<String> {
        object.spec.depends_on.iter().find_map(|dependency| self.lacks(object, dependency))
    }

    fn lacks(&self, object: &Object, dependency: &Dependency) -> Option<String> {
        let id = dependency.object(&object.id.namespace);
        let runs = self.runs(&id);
        let record = self.inputs.records.get(&id);
        match dependency.condition {
            DependencyCondition::Running if runs => None,
            DependencyCondition::Healthy if self.known(&id).is_some_and(Known::is_healthy) => None,
            _ if record.is_none() => Some(format!("waits for {id}, which nothing asks for yet")),
            DependencyCondition::Running => Some(format!("waits for {id} to run")),
            DependencyCondition::Healthy => Some(format!("waits for {id} to be healthy")),
            DependencyCondition::Completed => match record.and_then(|record| record.last_exit) {
                Some(exit) if !runs && exit.is_success() => None,
                Some(exit) if !runs => Some(format!("waits for {id} to complete, which {}", super::words::exit(&exit))),
                _ => Some(format!("waits for {id} to complete")),
            },
        }
    }

    /// The way on which a revision would come to wait for itself: `a → b → a`.
    pub(super) fn cycle(&self, object: &Object) -> Option<String> {
        let mut way = vec![object.id.clone()];
        let mut seen = BTreeSet::new();
        self.walk(object, &object.id, &mut way, &mut seen).then(|| {
            let names: Vec<String> = way.iter().map(|id| id.name.to_string()).collect();
            format!("dependsOn goes in a circle: {}", names.join(" → "))
        })
    }

    fn walk(&self, at: &Object, start: &ObjectId, way: &mut Vec<ObjectId>, seen: &mut BTreeSet<ObjectId>) -> bool {
        for dependency in &at.spec.depends_on {
            let id = dependency.object(&at.id.namespace);
            way.push(id.clone());
            if id == *start {
                return true;
            }
            if seen.insert(id.clone())
                && let Some(next) = self.text_of(&id)
                && self.walk(next, start, way, seen)
            {
                return true;
            }
            way.pop();
        }
        false
    }

    /// What is asked for now, or was last.
    fn text_of(&self, id: &ObjectId) -> Option<&'a Object> {
        match self.inputs.desired.objects.get(id) {
            Some(Wish::Present(wanted)) => Some(&*wanted.object),
            Some(Wish::Invalid { .. }) | None => self.inputs.records.get(id).map(|record| &*record.accepted),
        }
    }

    /// For each object that runs, one that needs it and runs too: that one is stopped first.
    pub(super) fn needed(&self) -> BTreeMap<ObjectId, ObjectId> {
        let mut needed = BTreeMap::new();
        let with_needs = self.inputs.records.values().filter(|record| !record.accepted.spec.depends_on.is_empty());
        for Record { id, accepted, .. } in with_needs.filter(|record| self.runs(&record.id)) {
            if self.cycle(accepted).is_some() {
                continue;
            }
            for dependency in &accepted.spec.depends_on {
                needed.insert(dependency.object(&id.namespace), id.clone());
            }
        }
        needed
    }
}
