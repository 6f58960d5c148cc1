//! The actions that were decided and have not ended: one per object, some with a worker, the rest waiting.

use crate::plan::Action;
use crate::spec::ObjectId;
use std::collections::{BTreeSet, VecDeque};

/// Gives out actions in the order in which they came, as many at once as there are workers.
#[derive(Debug)]
pub(super) struct Queue {
    workers: usize,
    busy: usize,
    in_flight: BTreeSet<ObjectId>,
    /// Of these, the ones that no worker has begun.
    waiting: VecDeque<(ObjectId, Action)>,
}

impl Queue {
    pub fn new(workers: usize) -> Self {
        Self { workers, busy: 0, in_flight: BTreeSet::new(), waiting: VecDeque::new() }
    }

    /// The planner decides nothing about an object in here, so there is never a second action of one.
    pub fn in_flight(&self) -> &BTreeSet<ObjectId> {
        &self.in_flight
    }

    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub fn waiting(&self) -> impl Iterator<Item = &ObjectId> {
        self.waiting.iter().map(|(object, _)| object)
    }

    pub fn busy(&self) -> usize {
        self.busy
    }

    pub fn push(&mut self, object: ObjectId, action: Action) {
        self.in_flight.insert(object.clone());
        self.waiting.push_back((object, action));
    }

    /// The next action for a worker, if there is one and a worker is free. [`Self::ended`] is to follow.
    pub fn next(&mut self) -> Option<(ObjectId, Action)> {
        if self.busy == self.workers {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.busy += 1;
        Some(next)
    }

    /// A worker is done with an object.
    pub fn ended(&mut self, object: &ObjectId) {
        self.busy -= 1;
        self.in_flight.remove(object);
    }

    /// Takes out what no worker has begun, of those objects, and says which they were.
    pub fn take_back(&mut self, which: impl Fn(&ObjectId) -> bool) -> Vec<ObjectId> {
        let (back, waiting): (VecDeque<_>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(object, _)| which(object));
        self.waiting = waiting;
        let back: Vec<ObjectId> = back.into_iter().map(|(object, _)| object).collect();
        for object in &back {
            self.in_flight.remove(object);
        }
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: usize) -> ObjectId {
        format!("Container/default/o{number}").try_into().unwrap()
    }

    fn filled(workers: usize, count: usize) -> Queue {
        let mut queue = Queue::new(workers);
        (0..count).for_each(|number| queue.push(object(number), Action::Forget));
        queue
    }

    fn all(queue: &mut Queue) -> Vec<ObjectId> {
        std::iter::from_fn(|| queue.next()).map(|(object, _)| object).collect()
    }

    #[test]
    fn no_more_actions_are_under_way_than_there_are_workers() {
        let mut queue = filled(3, 5);

        assert_eq!(all(&mut queue), [object(0), object(1), object(2)]);
        assert_eq!(queue.in_flight().len(), 5);
        queue.ended(&object(1));
        assert_eq!(all(&mut queue), [object(3)]);
        (0..5).filter(|number| *number != 1 && *number != 4).for_each(|number| queue.ended(&object(number)));
        assert_eq!(all(&mut queue), [object(4)]);
        queue.ended(&object(4));
        assert!(queue.is_empty());
    }

    #[test]
    fn only_what_no_worker_has_begun_is_taken_back() {
        let mut queue = filled(1, 4);
        assert_eq!(all(&mut queue), [object(0)]);

        let back = queue.take_back(|id| *id == object(0) || *id == object(2));

        assert_eq!(back, [object(2)]);
        assert_eq!(queue.waiting().cloned().collect::<Vec<_>>(), [object(1), object(3)]);
        assert_eq!(queue.in_flight().len(), 3);
    }
}
