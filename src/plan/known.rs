//! What is known of each object, side by side: its record, its wish, its sightings.
//!
//! All three are in the order of the objects, so one walk finds what belongs together; looking each of
//! them up would be most of a round over ten thousand objects.

use super::{HealthSeen, Inputs, Record, Sighting, Wish};
use crate::spec::{InstanceId, Kind, ObjectId};
use std::borrow::Cow;
use std::cmp::Ordering;

pub(super) type Seen<'a> = (&'a InstanceId, &'a Sighting);

/// Whatever there is of one object.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub id: Cow<'a, ObjectId>,
    pub record: Option<&'a Record>,
    pub wish: Option<&'a Wish>,
    /// Its instances on the host, lowest number first.
    pub seen: &'a [Seen<'a>],
}

impl Known<'_> {
    /// Something of it stands on the host, and no record or text knows it.
    pub fn is_stray(&self) -> bool {
        self.record.is_none() && self.wish.is_none()
    }

    /// It runs, and whatever is asked of it has been answered well.
    pub fn is_healthy(&self) -> bool {
        let unasked = self.record.is_some_and(|record| record.accepted.spec.health.is_none());
        self.seen.iter().any(|(_, sighting)| {
            sighting.is_running()
                && match &sighting.health {
                    HealthSeen::Ready => true,
                    HealthSeen::Unknown => unasked,
                    HealthSeen::Starting(_) | HealthSeen::NotReady(_) | HealthSeen::Failed(_) => false,
                }
        })
    }

    pub fn runs(&self) -> bool {
        self.seen.iter().any(|(_, sighting)| sighting.is_running())
    }
}

/// Every object that exists anywhere. `sightings` are those of the inputs, in their order.
pub(super) fn all<'a>(inputs: Inputs<'a>, sightings: &'a [Seen<'a>]) -> Vec<Known<'a>> {
    let mut records = inputs.records.iter().peekable();
    let mut wishes = inputs.desired.objects.iter().peekable();
    let mut rest = sightings;
    let mut objects = Vec::with_capacity(inputs.records.len().max(inputs.desired.objects.len()));
    loop {
        let recorded = records.peek().map(|(id, _)| *id);
        let wished = wishes.peek().map(|(id, _)| *id);
        let named = recorded.into_iter().chain(wished).min();
        let id = match (named, rest.first()) {
            (None, None) => return objects,
            (Some(id), None) => Cow::Borrowed(id),
            (Some(id), Some((instance, _))) if order(instance, id) != Ordering::Less => Cow::Borrowed(id),
            (_, Some((instance, _))) => Cow::Owned(instance.object()),
        };
        let of_it = rest.iter().take_while(|(instance, _)| order(instance, &id) == Ordering::Equal).count();
        let (seen, later) = rest.split_at(of_it);
        rest = later;
        let record = records.next_if(|(recorded, _)| **recorded == *id).map(|(_, record)| record);
        let wish = wishes.next_if(|(wished, _)| **wished == *id).map(|(_, wish)| wish);
        objects.push(Known { id, record, wish, seen });
    }
}

/// Where the object of an instance stands to another one, in the order of objects.
fn order(instance: &InstanceId, id: &ObjectId) -> Ordering {
    (Kind::Container, &instance.namespace, &instance.name).cmp(&(id.kind, &id.namespace, &id.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::object;
    use crate::plan::{Desired, Seen as Sightings, Settings, Wanted};
    use crate::spec::{Provenance, Span, Timestamp};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    const NAME: &str = "[ab]{1,2}(-[ab])?";

    fn id(name: &str) -> ObjectId {
        object(name, "{image: 'host:/', command: [c]}").id
    }

    fn wanted(name: &str) -> Wanted {
        let (source, file, path, revision) = Default::default();
        let provenance = Provenance { source, file, path, document: 1, line: 1, revision, drop_ins: Vec::new() };
        Wanted { object: Arc::new(object(name, "{image: 'host:/', command: [c]}")), provenance }
    }

    proptest! {
        #[test]
        fn nothing_of_an_object_is_left_out_or_given_to_another(
            recorded in prop::collection::btree_set(NAME, 0..6),
            wished in prop::collection::btree_set(NAME, 0..6),
            seen in prop::collection::btree_set((NAME, 1_u64..4), 0..8),
        ) {
            let settings = Settings {
                id_base: 0,
                id_ranges: 0,
                deletion_grace: Span(0),
                retention: Span(0),
                max_delete: 0,
                max_delete_percent: 0,
                pruning: BTreeMap::new(),
                stop_all: false,
                halt: false,
            };
            let mut desired = Desired::default();
            desired.objects.extend(wished.iter().map(|name| (id(name), Wish::Present(Arc::new(wanted(name))))));
            let records: BTreeMap<_, _> =
                recorded.iter().map(|name| (id(name), Record::first(&wanted(name)))).collect();
            let instances =
                seen.iter().map(|(name, number)| (InstanceId::new(&id(name), *number), Sighting::default())).collect();
            let sighted = Sightings { instances };
            let (in_flight, approved) = Default::default();
            let inputs = Inputs {
                settings: &settings,
                desired: &desired,
                records: &records,
                seen: &sighted,
                in_flight: &in_flight,
                approved: &approved,
                now: Timestamp(0),
            };
            let sightings: Vec<Seen<'_>> = inputs.seen.instances.iter().collect();

            let objects = all(inputs, &sightings);

            let names: BTreeSet<&str> =
                recorded.iter().chain(&wished).chain(seen.iter().map(|(name, _)| name)).map(String::as_str).collect();
            prop_assert_eq!(objects.len(), names.len());
            for (known, name) in objects.iter().zip(names) {
                let id = id(name);
                prop_assert_eq!(&*known.id, &id);
                prop_assert_eq!(known.record.map(|record| &record.id), recorded.contains(name).then_some(&id));
                prop_assert_eq!(known.wish.is_some(), wished.contains(name));
                let numbers: Vec<u64> = known.seen.iter().map(|(instance, _)| instance.number).collect();
                let expected: Vec<u64> = seen.iter().filter(|(of, _)| of == name).map(|(_, number)| *number).collect();
                prop_assert_eq!(numbers, expected);
                prop_assert!(known.seen.iter().all(|(instance, _)| instance.object() == id));
            }
        }
    }
}
