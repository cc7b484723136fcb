//! Who this process is to a cluster, so that a right that is missing can be told by the line that grants it.

use super::{Error, Options};
use rdkafka::error::RDKafkaErrorCode;

/// What must be granted, told by the command that does it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{principal} may not {operation} {resource} at {servers}; grant it: kafka-acls --bootstrap-server {servers} --add \
     --allow-principal '{principal}' --operation {operation} {option}"
)]
pub struct MissingRight {
    principal: String,
    operation: &'static str,
    resource: String,
    option: String,
    servers: String,
}

/// The principal of one client, and what it works with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    servers: String,
    principal: String,
    group_id: String,
    /// What the client does with its group: a member reads it, others only ask.
    group_operation: &'static str,
    transactional_id: String,
    /// The topic of a client that reads one.
    reads: Option<String>,
}

impl Access {
    /// That of a client that writes, or administers.
    pub fn new(options: &Options) -> Self {
        Self {
            servers: options.bootstrap_servers.clone(),
            principal: principal(options),
            group_id: options.group_id.clone(),
            group_operation: "Read",
            transactional_id: options.transactional_id(),
            reads: None,
        }
    }

    /// That of a member of the group, which reads this topic.
    pub fn of_member(options: &Options, topic: &str) -> Self {
        Self { reads: Some(topic.to_owned()), ..Self::new(options) }
    }

    /// That of a reader that is in no group, but names one.
    pub fn of_reader(options: &Options, group_id: &str, topic: &str) -> Self {
        let group_id = group_id.to_owned();
        Self { group_id, group_operation: "Describe", ..Self::of_member(options, topic) }
    }

    /// The brokers that the client was given.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The topic that a reader reads.
    pub fn reads(&self) -> Option<&str> {
        self.reads.as_deref()
    }

    /// What must be granted, where the brokers have answered with this code; none where it is about something else.
    pub fn missing(&self, code: RDKafkaErrorCode) -> Option<Error> {
        use RDKafkaErrorCode::{
            ClusterAuthorizationFailed, GroupAuthorizationFailed, TopicAuthorizationFailed,
            TransactionalIdAuthorizationFailed,
        };
        let topic = self.reads.as_deref();
        Some(match code {
            TopicAuthorizationFailed => self.missing_on_topic("Read", topic?),
            GroupAuthorizationFailed => {
                let group = &self.group_id;
                self.denied(self.group_operation, &format!("the group {group}"), &format!("--group {group}"))
            }
            TransactionalIdAuthorizationFailed => {
                let id = &self.transactional_id;
                self.denied("Write", &format!("the transactional id {id}"), &format!("--transactional-id {id}"))
            }
            // An idempotent producer that may write no topic at all.
            ClusterAuthorizationFailed => self.missing_somewhere(),
            _ => return None,
        })
    }

    /// The same for a topic.
    pub fn missing_on_topic(&self, operation: &'static str, topic: &str) -> Error {
        self.denied(operation, &format!("the topic {topic}"), &format!("--topic {topic}"))
    }

    /// The same where it is not known which topic it is.
    pub fn missing_somewhere(&self) -> Error {
        self.denied("Write", "a topic that it is to write", "--topic TOPIC")
    }

    fn denied(&self, operation: &'static str, resource: &str, option: &str) -> Error {
        Error::Denied(Box::new(MissingRight {
            principal: self.principal.clone(),
            operation,
            resource: resource.to_owned(),
            option: option.to_owned(),
            servers: self.servers.clone(),
        }))
    }
}

/// The principal's name, as far as the client can know it.
fn principal(options: &Options) -> String {
    let property = |name: &str| options.properties.get(name).map(String::as_str);
    let protocol = property("security.protocol").unwrap_or("plaintext").to_lowercase();
    let mechanism = property("sasl.mechanism").or(property("sasl.mechanisms")).unwrap_or_default();
    let has_certificate = ["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"]
        .into_iter()
        .any(|name| property(name).is_some());
    match protocol.as_str() {
        "sasl_ssl" | "sasl_plaintext" if mechanism.eq_ignore_ascii_case("OAUTHBEARER") => {
            "User:<subject of the token>".into()
        }
        "sasl_ssl" | "sasl_plaintext" => format!("User:{}", property("sasl.username").unwrap_or("<no sasl.username>")),
        "ssl" if has_certificate => "User:<subject of the client certificate>".into(),
        _ => "User:ANONYMOUS".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> Options {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options { properties, bootstrap_servers: "b:1".into(), ..Options::default() }
    }

    #[test]
    fn principals() {
        assert_eq!(principal(&options(&[])), "User:ANONYMOUS");
        assert_eq!(principal(&options(&[("security.protocol", "SSL")])), "User:ANONYMOUS");
        let certificate = [("security.protocol", "ssl"), ("ssl.certificate.location", "c.pem")];
        assert_eq!(principal(&options(&certificate)), "User:<subject of the client certificate>");
        let scram = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "me")];
        assert_eq!(principal(&options(&scram)), "User:me");
        let bearer = [("security.protocol", "SASL_SSL"), ("sasl.mechanisms", "OAUTHBEARER")];
        assert_eq!(principal(&options(&bearer)), "User:<subject of the token>");
    }

    #[test]
    fn what_is_missing_is_told_by_the_line_that_grants_it() {
        use RDKafkaErrorCode::{GroupAuthorizationFailed, RequestTimedOut, TopicAuthorizationFailed};
        let reader = Access::of_reader(&options(&[]), "litflow", "articles");
        assert_eq!(
            reader.missing(TopicAuthorizationFailed).unwrap().to_string(),
            "User:ANONYMOUS may not Read the topic articles at b:1; grant it: kafka-acls --bootstrap-server b:1 --add \
             --allow-principal 'User:ANONYMOUS' --operation Read --topic articles"
        );
        assert!(reader.missing(GroupAuthorizationFailed).unwrap().to_string().contains("Describe --group litflow"));
        assert!(reader.missing(RequestTimedOut).is_none());
    }
}
