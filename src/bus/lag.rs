//! How far a consumer group is behind, for whoever wants to stay out of its way.

use super::kafka::Context;
use super::reader::{connect, partitions};
use super::{Error, Options};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A group and the topic that it consumes, seen from outside.
pub struct Group {
    client: BaseConsumer<Context>,
    topic: String,
    partitions: Vec<i32>,
}

impl Group {
    /// Does not join it.
    pub fn new(options: &Options, group: &str, topic: &str) -> Result<Self, Error> {
        let client = connect(options, group, topic, &[])?;
        let partitions = partitions(&client, topic, options)?;
        Ok(Self { client, topic: topic.to_owned(), partitions })
    }

    /// How many offsets of the topic the group has not committed yet; none where it has never committed any: then
    /// there is no such group, or it has not begun.
    pub fn lag(&self) -> Result<Option<u64>, Error> {
        self.lag_of(&self.partitions)
    }

    /// The same for some of its partitions.
    pub fn lag_of(&self, partitions: &[i32]) -> Result<Option<u64>, Error> {
        let committed = self.committed(partitions)?;
        if committed.iter().all(|(_, offset)| offset.is_none()) {
            return Ok(None);
        }
        let mut lag = 0;
        for (partition, offset) in committed {
            let (begin, end) = self.bounds(partition)?;
            // A partition that nothing was committed for is read from its beginning.
            lag += end.saturating_sub(offset.unwrap_or(begin).max(begin)).max(0) as u64;
        }
        Ok(Some(lag))
    }

    /// The place of a record that the group has not committed yet, in the first of these partitions that has one.
    pub fn first_waiting(&self, partitions: &[i32]) -> Result<Option<(i32, i64)>, Error> {
        for (partition, offset) in self.committed(partitions)? {
            let offset = offset.unwrap_or(self.bounds(partition)?.0);
            let mut list = TopicPartitionList::new();
            let place = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
            let assigned = place.and_then(|()| self.client.assign(&list));
            assigned.map_err(|e| Error::kafka("looking for a record", &e))?;
            let found = self.client.poll(REQUEST_TIMEOUT);
            let waiting = match &found {
                Some(Ok(message)) => Some((partition, message.offset())),
                Some(Err(_)) | None => None, // the end of the partition, or nobody answers
            };
            drop(found);
            self.client.unassign().map_err(|e| Error::kafka("looking for a record", &e))?;
            if waiting.is_some() {
                return Ok(waiting);
            }
        }
        Ok(None)
    }

    fn committed(&self, partitions: &[i32]) -> Result<Vec<(i32, Option<i64>)>, Error> {
        let mut list = TopicPartitionList::new();
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        let committed = self.client.committed_offsets(list, REQUEST_TIMEOUT);
        let committed = committed.map_err(|e| Error::kafka("asking for a group's offsets", &e))?;
        let offset_of = |offset: Offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(committed.elements().iter().map(|at| (at.partition(), offset_of(at.offset()))).collect())
    }

    fn bounds(&self, partition: i32) -> Result<(i64, i64), Error> {
        let bounds = self.client.fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT);
        bounds.map_err(|e| Error::kafka("asking for a partition's offsets", &e))
    }
}
