//! How far a consumer group is behind, for whoever wants to stay out of its way.

use super::kafka::Context;
use super::reader::{connect, partitions};
use super::{Error, Options};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
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
        let client = connect(options, group, &[])?;
        let partitions = partitions(&client, topic, options)?;
        Ok(Self { client, topic: topic.to_owned(), partitions })
    }

    /// How many offsets of the topic the group has not committed yet; none where it has never committed any: then
    /// there is no such group, or it has not begun.
    pub fn lag(&self) -> Result<Option<u64>, Error> {
        let mut list = TopicPartitionList::new();
        for &partition in &self.partitions {
            list.add_partition(&self.topic, partition);
        }
        let committed = self.client.committed_offsets(list, REQUEST_TIMEOUT);
        let committed = committed.map_err(|e| Error::kafka("asking for a group's offsets", &e))?;
        let offset_of = |offset: Offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        if committed.elements().iter().all(|element| offset_of(element.offset()).is_none()) {
            return Ok(None);
        }
        let mut lag = 0;
        for element in committed.elements() {
            let bounds = self.client.fetch_watermarks(&self.topic, element.partition(), REQUEST_TIMEOUT);
            let (begin, end) = bounds.map_err(|e| Error::kafka("asking for a partition's offsets", &e))?;
            // A partition that nothing was committed for is read from its beginning.
            lag += end.saturating_sub(offset_of(element.offset()).unwrap_or(begin).max(begin)).max(0) as u64;
        }
        Ok(Some(lag))
    }
}
