//! Certificates: a development CA that issues what a trial needs, and what a certificate file says, in words.
//!
//! Terms: a *CA* signs certificates; *credentials* are a certificate with its private key; a *device certificate* has the
//! device's id as its common name (CN), which the broker demands as MQTT client id.
//!
//! Must not: read a clock (validity is given), decide whether a certificate is trusted (rustls does that where it is used).
//!
//! The keys are ECDSA on P-256, which rustls, OpenSSL and mosquitto all take. The CA's key lies unencrypted in a file of
//! mode 0600: good for development and trials, not for a fleet.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::message::Timestamp;

/// How long a new CA is valid, in days: ten years.
pub const CA_DAYS: u32 = 3650;
/// How long other certificates are valid, in days, where nothing else is asked for.
pub const LEAF_DAYS: u32 = 825;
/// The longest common name X.509 allows (RFC 5280, appendix A, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;
/// The file names of the CA and of the server, without their endings.
const CA_NAME: &str = "ca";
const SERVER_NAME: &str = "server";

/// Why a certificate could not be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("cannot make a certificate for {subject}")]
    Make {
        subject: String,
        source: rcgen::Error,
    },
    #[error("the system gave no random numbers for a serial number; try again")]
    Random,
    #[error("a server certificate needs at least one name or IP address that clients connect to")]
    NoNames,
    #[error("\"{0}\" is neither a host name nor an IP address; give what clients connect to")]
    BadName(String),
    #[error(
        "\"{0}\" cannot be a device's id in a certificate: use 1 to {COMMON_NAME_MAX} of the characters A-Z a-z 0-9 _ . -, \
         and neither \"{CA_NAME}\" nor \"{SERVER_NAME}\", which name files here"
    )]
    BadDeviceId(String),
    #[error("{} exists; delete it, choose another directory, or ask to overwrite it", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}; check that the directory is there and writable", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}; is this the directory the CA was written to?", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} and its key do not make a CA; create the CA anew", .path.display())]
    BadCa { path: PathBuf, source: rcgen::Error },
    #[error(
        "this is not a certificate in PEM form: {0}; give the .pem file that begins with BEGIN CERTIFICATE"
    )]
    NotACertificate(String),
}

/// The mode of a key file, if it lets others than its owner at the key: group or others may read, write or execute. An
/// access list shows in the group's bits, as its mask.
pub fn exposed_mode(key_file: &fs::Metadata) -> Option<u32> {
    let mode = key_file.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// From when until when a certificate is good. X.509 counts in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// Good for so many days from `now`, and an hour before, for devices whose clock is a little behind.
    pub fn days(now: Timestamp, days: u32) -> Validity {
        const BEHIND_NANOS: i64 = 3_600_000_000_000;
        Validity {
            not_before: Timestamp::from_nanos(now.as_nanos().saturating_sub(BEHIND_NANOS)),
            not_after: now.saturating_add(Duration::from_secs(u64::from(days) * 86_400)),
        }
    }
}

/// Whether files that exist may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    Never,
    Force,
}

/// A certificate and its private key, both in PEM form.
#[derive(Clone)]
pub struct Credentials {
    name: String,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Credentials {
    /// Writes `<name>.key` (mode 0600) and `<name>.pem`, where the name is `ca`, `server` or the device's id. The directory
    /// is created if need be.
    ///
    /// Each file is either the old one (or absent) or the whole new one, also after a crash. Both are written beside their
    /// places before the first is put there, the key first. A crash in the instant between the two leaves a new key
    /// without its certificate, which [`Overwrite::Never`] reports as a file that exists: write again with
    /// [`Overwrite::Force`].
    pub fn write(&self, directory: &Path, overwrite: Overwrite) -> Result<(), CertsError> {
        let certificate = directory.join(format!("{}.pem", self.name));
        let key = directory.join(format!("{}.key", self.name));
        let write_error = |path: &Path| {
            let path = path.to_owned();
            |source| CertsError::Write { path, source }
        };
        fs::create_dir_all(directory).map_err(write_error(directory))?;
        if overwrite == Overwrite::Never
            && let Some(path) = [&key, &certificate].into_iter().find(|path| path.exists())
        {
            return Err(CertsError::Exists(path.clone()));
        }
        let key = Prepared::write(key, &self.key_pem, 0o600)?;
        let certificate = Prepared::write(certificate, &self.certificate_pem, 0o644)?;
        key.put_in_place(overwrite)?;
        certificate.put_in_place(overwrite)?;
        // The files' new names are the directory's contents.
        fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(write_error(directory))
    }
}

/// A file that is written and synced beside its place, and removed unless it is put there.
struct Prepared {
    path: PathBuf,
    beside: PathBuf,
}

impl Prepared {
    fn write(path: PathBuf, text: &str, mode: u32) -> Result<Prepared, CertsError> {
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let prepared = Prepared {
            path,
            beside: beside.into(),
        };
        prepared.write_beside(text, mode).map_err(|source| {
            let path = prepared.beside.clone();
            CertsError::Write { path, source }
        })?;
        Ok(prepared)
    }

    fn write_beside(&self, text: &str, mode: u32) -> io::Result<()> {
        // What a crash has left. It is not written over: its mode may be another.
        match fs::remove_file(&self.beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create_new(true).mode(mode);
        let mut file = options.open(&self.beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn put_in_place(self, overwrite: Overwrite) -> Result<(), CertsError> {
        let put = match overwrite {
            Overwrite::Force => fs::rename(&self.beside, &self.path),
            // Unlike a rename, a link replaces nothing, not even what has come since we looked.
            Overwrite::Never => match fs::hard_link(&self.beside, &self.path) {
                // FAT knows no links. There the look before has to do.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    fs::rename(&self.beside, &self.path)
                }
                linked => linked,
            },
        };
        put.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => CertsError::Exists(self.path.clone()),
            _ => CertsError::Write {
                path: self.path.clone(),
                source,
            },
        })
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // A renamed file is not there any more, and one that stays is replaced the next time.
        let _ = fs::remove_file(&self.beside);
    }
}

/// A CA for development and trials.
pub struct DevelopmentCa {
    issuer: Issuer<'static, KeyPair>,
    credentials: Credentials,
}

impl DevelopmentCa {
    /// A new CA with a key of its own, valid for [`CA_DAYS`].
    pub fn create(now: Timestamp) -> Result<DevelopmentCa, CertsError> {
        DevelopmentCa::create_valid(Validity::days(now, CA_DAYS))
    }

    /// A new CA with a key of its own.
    pub fn create_valid(validity: Validity) -> Result<DevelopmentCa, CertsError> {
        let serial = random_serial()?;
        // Two CAs must not share a name: verifiers look an issuer up by it.
        let common_name = format!("Tidegate development CA {}", hex(&serial[..4]));
        let mut params = params(&common_name, validity, serial);
        // No CA below this one: it signs servers and devices only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let make = |source| CertsError::Make {
            subject: common_name.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let credentials = Credentials {
            name: CA_NAME.to_owned(),
            certificate_pem: params.self_signed(&key).map_err(make)?.pem(),
            key_pem: key.serialize_pem(),
        };
        Ok(DevelopmentCa {
            issuer: Issuer::new(params, key),
            credentials,
        })
    }

    /// The CA that was written to this directory.
    pub fn load(directory: &Path) -> Result<DevelopmentCa, CertsError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CertsError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let path = directory.join(format!("{CA_NAME}.pem"));
        let certificate_pem = read(&path)?;
        let key_pem = read(&directory.join(format!("{CA_NAME}.key")))?;
        let issuer = KeyPair::from_pem(&key_pem)
            .and_then(|key| Issuer::from_ca_cert_pem(&certificate_pem, key))
            .map_err(|source| CertsError::BadCa { path, source })?;
        Ok(DevelopmentCa {
            issuer,
            credentials: Credentials {
                name: CA_NAME.to_owned(),
                certificate_pem,
                key_pem,
            },
        })
    }

    /// The CA's own certificate and key.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A certificate for a server that clients reach by these host names and IP addresses.
    pub fn issue_server(
        &self,
        names: &[String],
        validity: Validity,
    ) -> Result<Credentials, CertsError> {
        if let Some(bad) = names
            .iter()
            .find(|name| ServerName::try_from(name.as_str()).is_err())
        {
            return Err(CertsError::BadName(bad.clone()));
        }
        let first = names.first().ok_or(CertsError::NoNames)?;
        // Clients look at the alternative names; the common name is for people, and may be cut.
        let common_name: String = first.chars().take(COMMON_NAME_MAX).collect();
        let mut params = params(&common_name, validity, random_serial()?);
        params.subject_alt_names = CertificateParams::new(names)
            .map_err(|source| CertsError::Make {
                subject: first.clone(),
                source,
            })?
            .subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(SERVER_NAME, params)
    }

    /// A certificate with which a device, or any other client, shows its id to a broker. The id is its common name, so it
    /// has at most 64 characters, where [`is_plain_id`] alone allows 128.
    pub fn issue_device(
        &self,
        device_id: &str,
        validity: Validity,
    ) -> Result<Credentials, CertsError> {
        if !is_plain_id(device_id)
            || device_id.len() > COMMON_NAME_MAX
            || [CA_NAME, SERVER_NAME].contains(&device_id)
        {
            return Err(CertsError::BadDeviceId(device_id.to_owned()));
        }
        let mut params = params(device_id, validity, random_serial()?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(device_id, params)
    }

    fn issue(&self, name: &str, mut params: CertificateParams) -> Result<Credentials, CertsError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let make = |source| CertsError::Make {
            subject: name.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Credentials {
            name: name.to_owned(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Whether this is an id that is safe as a client id, a topic level and a file name: 1 to 128 of A-Z a-z 0-9 _ . -
///
/// The one rule for ids. An id in a certificate is shorter still: X.509 ends a common name at 64 characters, so a device
/// with a longer id connects only to brokers that do not ask for its id in the certificate.
pub fn is_plain_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn params(common_name: &str, validity: Validity, serial: [u8; 16]) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| {
        let seconds = time.as_nanos().div_euclid(1_000_000_000).max(0);
        epoch + Duration::from_secs(seconds.unsigned_abs())
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.not_before = at(validity.not_before);
    params.not_after = at(validity.not_after);
    params
}

/// 126 random bits, never negative and always 16 bytes long as a DER integer.
fn random_serial() -> Result<[u8; 16], CertsError> {
    let mut serial = [0; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut serial)
        .map_err(|_| CertsError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CertificateInfo {
    /// The subject's common name, if it has exactly one.
    pub common_name: Option<String>,
    /// The subject's whole name.
    pub subject: String,
    /// The host names and IP addresses it is for.
    pub names: Vec<String>,
    /// The issuer's whole name.
    pub issuer: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_ca: bool,
}

/// Describes every certificate of a PEM file, in their order; it says nothing about trust.
pub fn describe(pem: &[u8]) -> Result<Vec<CertificateInfo>, CertsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .map(|der| {
            let der = der.map_err(|error| CertsError::NotACertificate(error.to_string()))?;
            describe_der(&der)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(CertsError::NotACertificate(
            "there is no certificate in it".to_owned(),
        ));
    }
    Ok(certificates)
}

/// Describes one certificate in DER form, as a TLS connection presents it.
pub fn describe_der(der: &[u8]) -> Result<CertificateInfo, CertsError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CertsError::NotACertificate(error.to_string()))?;
    let mut common_names = certificate.subject().iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(only), None) => only.as_str().ok().map(str::to_owned),
        _ => None,
    };
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(name_text)
            .collect(),
        _ => Vec::new(),
    };
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_millis(time.timestamp().saturating_mul(1000))
    };
    Ok(CertificateInfo {
        common_name,
        subject: certificate.subject().to_string(),
        names,
        issuer: certificate.issuer().to_string(),
        not_before: time(certificate.validity().not_before),
        not_after: time(certificate.validity().not_after),
        is_ca: certificate.is_ca(),
    })
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// 2026-11-22T00:00:00Z
    const NOW: Timestamp = Timestamp::from_millis(1_795_305_600_000);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_certificate_says_what_was_asked_for() {
        let ca = DevelopmentCa::create(NOW).unwrap();
        let validity = Validity::days(NOW, LEAF_DAYS);
        let server = ca
            .issue_server(&names(&["pi.local", "192.0.2.7", "2001:db8::7"]), validity)
            .unwrap();
        let of_ca = &describe(ca.credentials().certificate_pem.as_bytes()).unwrap()[0];
        assert!(of_ca.is_ca);
        assert_eq!(of_ca.not_after, Validity::days(NOW, CA_DAYS).not_after);

        let info = &describe(server.certificate_pem.as_bytes()).unwrap()[0];
        assert_eq!(info.common_name.as_deref(), Some("pi.local"));
        assert_eq!(info.names, ["pi.local", "192.0.2.7", "2001:db8::7"]);
        assert_eq!(
            (info.not_before, info.not_after),
            (validity.not_before, validity.not_after)
        );
        assert_eq!(
            info.issuer,
            format!("CN={}", of_ca.common_name.as_deref().unwrap())
        );
        assert!(!info.is_ca);

        let device = ca.issue_device("press-7", validity).unwrap();
        let info = &describe(device.certificate_pem.as_bytes()).unwrap()[0];
        assert_eq!(info.common_name.as_deref(), Some("press-7"));
        assert!(info.names.is_empty());
    }

    #[test]
    fn serial_numbers_differ_and_are_positive() {
        let (one, other) = (random_serial().unwrap(), random_serial().unwrap());
        assert_ne!(one, other);
        assert!((0x40..0x80).contains(&one[0]), "{one:?}");
    }

    #[test]
    fn names_that_cannot_work_are_refused_in_words() {
        let ca = DevelopmentCa::create(NOW).unwrap();
        let validity = Validity::days(NOW, 1);
        for id in [
            "",
            "a/b",
            "a+b",
            "../x",
            "ü",
            "ca",
            "server",
            &"x".repeat(65),
        ] {
            let error = ca.issue_device(id, validity).err().expect(id);
            assert!(
                error.to_string().contains("cannot be a device's id"),
                "{error}"
            );
        }
        assert!(ca.issue_device(&"x".repeat(64), validity).is_ok());
        for bad in [&["two words"][..], &["ok.local", ""], &["a/b"]] {
            let error = ca.issue_server(&names(bad), validity).err().unwrap();
            assert!(error.to_string().contains("neither a host name"), "{error}");
        }
        assert!(matches!(
            ca.issue_server(&[], validity),
            Err(CertsError::NoNames)
        ));
    }

    #[test]
    fn files_are_private_and_never_overwritten_unasked() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("new/tls");
        let ca = DevelopmentCa::create(NOW).unwrap();
        ca.credentials()
            .write(&directory, Overwrite::Never)
            .unwrap();
        let mode = |name: &str| {
            fs::metadata(directory.join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode("ca.key"), 0o600);

        let other = DevelopmentCa::create(NOW).unwrap();
        let error = other.credentials().write(&directory, Overwrite::Never);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ca.key exists"), "{error}");
        let on_disk = || fs::read_to_string(directory.join("ca.pem")).unwrap();
        assert_eq!(on_disk(), ca.credentials().certificate_pem);

        other
            .credentials()
            .write(&directory, Overwrite::Force)
            .unwrap();
        assert_eq!(on_disk(), other.credentials().certificate_pem);
        assert_eq!(mode("ca.key"), 0o600);
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    /// What `Never` wrote used to be written in place: a crash left half a key there, which then "exists".
    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.key");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        // What a crash may leave is no obstacle, and its mode is not taken over.
        fs::write(directory.path().join("ca.key.new"), "half").unwrap();
        let prepared = Prepared::write(path.clone(), "whole", 0o600).unwrap();
        assert!(!path.exists());
        prepared.put_in_place(Overwrite::Never).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(names(), 1);

        // What has come after the look before is not replaced.
        let late = Prepared::write(path.clone(), "late", 0o600).unwrap();
        let refused = late.put_in_place(Overwrite::Never);
        assert!(matches!(refused, Err(CertsError::Exists(_))), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(names(), 1);
    }

    #[test]
    fn a_ca_that_was_written_issues_again() {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevelopmentCa::create(NOW).unwrap();
        ca.credentials()
            .write(directory.path(), Overwrite::Never)
            .unwrap();
        let device = DevelopmentCa::load(directory.path())
            .unwrap()
            .issue_device("press-7", Validity::days(NOW, 1))
            .unwrap();
        let info = &describe(device.certificate_pem.as_bytes()).unwrap()[0];
        let of_ca = &describe(ca.credentials().certificate_pem.as_bytes()).unwrap()[0];
        assert_eq!(
            info.issuer,
            format!("CN={}", of_ca.common_name.as_deref().unwrap())
        );

        let empty = tempfile::tempdir().unwrap();
        let error = DevelopmentCa::load(empty.path()).err().unwrap().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }

    #[test]
    fn what_is_not_a_certificate_is_said_to_be_none() {
        let ca = DevelopmentCa::create(NOW).unwrap();
        for text in ["", "hello", ca.credentials().key_pem.as_str()] {
            let error = describe(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("not a certificate"), "{error}");
        }
        assert!(describe_der(&[0x30, 0x82, 0xff]).is_err());
    }
}
