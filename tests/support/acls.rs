//! Grants rights and takes them away. The lines of `docs/security.md` are what is granted, so they are read as
//! `kafka-acls` reads them; the admin calls are librdkafka's own, which the rdkafka crate does not wrap.

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::bindings::*;
use rdkafka::client::DefaultClientContext;
use std::ffi::CString;
use std::ptr::null;

/// One operation on one resource, for one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub principal: String,
    pub operation: String,
    pub resource: Resource,
    pub prefixed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    Group(String),
    TransactionalId(String),
}

/// The rights of each command in the blocks of code below a heading, in order.
pub fn documented(document: &str, heading: &str) -> Vec<Right> {
    let section = document.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let lines = section.lines().filter(|line| line.starts_with("kafka-acls "));
    let rights: Vec<Right> = lines.flat_map(parse).collect();
    assert!(!rights.is_empty(), "no rights under {heading}");
    rights
}

/// Every operation on every resource, as the tool takes it.
pub fn parse(line: &str) -> Vec<Right> {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let (mut principal, mut operations, mut resources, mut prefixed) = (None, Vec::new(), Vec::new(), false);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{line}: {word} has no value")).to_owned();
        match word {
            "--add" => {}
            "--bootstrap-server" => drop(value()),
            "--allow-principal" => principal = Some(value()),
            "--operation" => operations.push(value()),
            "--topic" => resources.push(Resource::Topic(value())),
            "--group" => resources.push(Resource::Group(value())),
            "--transactional-id" => resources.push(Resource::TransactionalId(value())),
            "--resource-pattern-type" => prefixed = value() == "prefixed",
            _ => panic!("{line}: {word} is not expected"),
        }
    }
    let principal = principal.unwrap_or_else(|| panic!("{line}: no principal"));
    let right = |operation: &String, resource: &Resource| Right {
        principal: principal.clone(),
        operation: operation.clone(),
        resource: resource.clone(),
        prefixed,
    };
    operations.iter().flat_map(|operation| resources.iter().map(|resource| right(operation, resource))).collect()
}

/// Who may change rights.
pub struct Acls(AdminClient<DefaultClientContext>);

impl Acls {
    pub fn new(servers: &str) -> Self {
        Self(ClientConfig::new().set("bootstrap.servers", servers).create().unwrap())
    }

    pub fn grant(&self, rights: &[Right]) {
        for right in rights {
            let result = self.change(right, |client, binding, queue| {
                // SAFETY: all three are valid during the call, which copies what it needs of the binding.
                unsafe { rd_kafka_CreateAcls(client, &mut { binding }, 1, null(), queue) }
            });
            // SAFETY: the event is that of the call above, and lives until it is destroyed below.
            unsafe {
                let mut count = 0;
                let results = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(result), &mut count);
                assert!(count == 1 && rd_kafka_acl_result_error(*results).is_null(), "{right:?} cannot be granted");
                rd_kafka_event_destroy(result);
            }
        }
    }

    /// Takes a right that was granted.
    pub fn revoke(&self, right: &Right) {
        let result = self.change(right, |client, binding, queue| {
            // SAFETY: as above; a filter is a binding that must match in all.
            unsafe { rd_kafka_DeleteAcls(client, &mut { binding }, 1, null(), queue) }
        });
        // SAFETY: as above.
        unsafe {
            let (mut count, mut matching) = (0, 0);
            let responses = rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(result), &mut count);
            assert!(count == 1 && rd_kafka_DeleteAcls_result_response_error(*responses).is_null(), "{right:?}");
            rd_kafka_DeleteAcls_result_response_matching_acls(*responses, &mut matching);
            assert_eq!(matching, 1, "{right:?} was not granted");
            rd_kafka_event_destroy(result);
        }
    }

    fn change(
        &self,
        right: &Right,
        call: impl FnOnce(*mut rd_kafka_t, *mut rd_kafka_AclBinding_t, *mut rd_kafka_queue_t),
    ) -> *mut rd_kafka_event_t {
        let (kind, name) = match &right.resource {
            Resource::Topic(name) => (rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name),
            Resource::Group(name) => (rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_GROUP, name),
            Resource::TransactionalId(name) => (rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID, name),
        };
        let pattern = match right.prefixed {
            true => rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
            false => rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
        };
        let operation = match right.operation.as_str() {
            "Read" => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ,
            "Write" => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE,
            "Delete" => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DELETE,
            "Describe" => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE,
            other => panic!("the operation {other} is not known here"),
        };
        let allow = rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
        let text = |text: &str| CString::new(text).unwrap();
        let (name, principal, host) = (text(name), text(&right.principal), text("*"));
        let mut reason = [0; 256];
        let client = self.0.inner().native_ptr();
        // SAFETY: the texts and the buffer outlive the call, which copies them; binding and queue are checked, used
        // while the client lives, and destroyed once.
        unsafe {
            let (name, principal, host) = (name.as_ptr(), principal.as_ptr(), host.as_ptr());
            let room = reason.len();
            let binding = rd_kafka_AclBinding_new(
                kind,
                name,
                pattern,
                principal,
                host,
                operation,
                allow,
                reason.as_mut_ptr(),
                room,
            );
            assert!(!binding.is_null(), "{right:?} is no right");
            let queue = rd_kafka_queue_new(client);
            call(client, binding, queue);
            let event = rd_kafka_queue_poll(queue, 30_000);
            rd_kafka_AclBinding_destroy(binding);
            rd_kafka_queue_destroy(queue);
            assert!(!event.is_null(), "no answer about {right:?}");
            event
        }
    }
}
