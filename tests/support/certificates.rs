//! Certificates for a test: an authority, and what it signs.

#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its part; the lint knows test functions only

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509NameBuilder};
use std::path::{Path, PathBuf};

/// A certificate with its key.
pub struct Certificate {
    certificate: X509,
    key: PKey<Private>,
}

/// When a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Today,
    Expired,
}

impl Certificate {
    pub fn authority() -> Self {
        Self::new("an authority", None, Validity::Today)
    }

    /// For a host, or a client, of this name.
    pub fn signed(&self, name: &str, validity: Validity) -> Self {
        Self::new(name, Some(self), validity)
    }

    fn new(name: &str, issuer: Option<&Self>, validity: Validity) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_pubkey(&key).unwrap();
        let (from, until) = match validity {
            Validity::Today => (Asn1Time::days_from_now(0), Asn1Time::days_from_now(2)),
            Validity::Expired => (Asn1Time::from_unix(0), Asn1Time::from_unix(86_400)),
        };
        builder.set_not_before(&from.unwrap()).unwrap();
        builder.set_not_after(&until.unwrap()).unwrap();
        match issuer {
            None => {
                builder.set_issuer_name(&subject).unwrap();
                builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
                builder.sign(&key, MessageDigest::sha256()).unwrap();
            }
            Some(issuer) => {
                builder.set_issuer_name(issuer.certificate.subject_name()).unwrap();
                let context = builder.x509v3_context(Some(&issuer.certificate), None);
                let names = SubjectAlternativeName::new().dns(name).build(&context).unwrap();
                builder.append_extension(names).unwrap();
                builder.sign(&issuer.key, MessageDigest::sha256()).unwrap();
            }
        }
        Self { certificate: builder.build(), key }
    }

    /// Writes `<name>.pem` and `<name>.key` into a folder; their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, self.certificate.to_pem().unwrap()).unwrap();
        std::fs::write(&key, self.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        (certificate, key)
    }

    /// A server with this certificate; it asks clients for one of `authority`, where that is given.
    pub fn acceptor(&self, authority: Option<&Self>) -> SslAcceptor {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate(&self.certificate).unwrap();
        acceptor.set_private_key(&self.key).unwrap();
        if let Some(authority) = authority {
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(authority.certificate.clone()).unwrap();
            acceptor.set_verify_cert_store(store.build()).unwrap();
            acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        acceptor.build()
    }
}
