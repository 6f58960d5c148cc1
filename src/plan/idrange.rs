//! Gives every instance its own range of ids, of the ranges that this host sets aside.

use super::Inputs;
use crate::spec::IdRange;
use std::collections::BTreeSet;

/// The ranges that no record and no sighting has; worked out when the first one is asked for.
pub(super) struct FreeRanges<'a> {
    inputs: Inputs<'a>,
    taken: Option<BTreeSet<u32>>,
}

impl<'a> FreeRanges<'a> {
    pub(super) fn new(inputs: Inputs<'a>) -> Self {
        Self { inputs, taken: None }
    }

    /// The lowest free range, taken from now on; `None` when all are in use.
    pub(super) fn take(&mut self) -> Option<IdRange> {
        let settings = self.inputs.settings;
        let inputs = self.inputs;
        let taken = self.taken.get_or_insert_with(|| {
            let recorded = inputs.records.values().filter_map(|record| record.instance.as_ref()?.ids);
            let seen = inputs.seen.instances.values().filter_map(|sighting| sighting.ids);
            recorded.chain(seen).flat_map(|range| slots(settings.id_base, range)).collect()
        });
        let free = (0..settings.id_ranges).find(|slot| !taken.contains(slot))?;
        let base = free.checked_mul(IdRange::SIZE).and_then(|offset| settings.id_base.checked_add(offset))?;
        // The range has to end before the ids do; 2^32 - 1 is no id (chown(2)).
        base.checked_add(IdRange::SIZE)?;
        taken.insert(free);
        Some(IdRange { base, size: IdRange::SIZE })
    }
}

/// Every slot that `range` reaches into: it may have been given out from another base.
fn slots(base: u32, range: IdRange) -> std::ops::Range<u32> {
    let end = u64::from(range.base) + u64::from(range.size);
    let first = range.base.saturating_sub(base) / IdRange::SIZE;
    let last = end.saturating_sub(u64::from(base)).div_ceil(u64::from(IdRange::SIZE));
    first..u32::try_from(last).unwrap_or(u32::MAX)
}
