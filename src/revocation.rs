//! Revocation lists (CRLs, RFC 5280, section 5): what a file of them holds, and whether it can be gone by now.
//!
//! A list says which certificates its authority has taken back, and until when it is to be believed (`nextUpdate`). One that
//! is past that may hide a certificate that was taken back since, so it is as bad as none.
//!
//! Must not: read a clock or files, or verify whose list it is; rustls does that where it is used.

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_crl;

use crate::message::Timestamp;

/// One list.
#[derive(Debug)]
pub struct RevocationList {
    pub der: CertificateRevocationListDer<'static>,
    /// The whole name of the authority that issued it.
    pub issuer: String,
    /// When it was due to be replaced. RFC 5280 demands it, and rustls does without.
    pub next_update: Option<Timestamp>,
    /// How many certificates are revoked by it.
    pub revoked: usize,
}

/// Why a file gives no lists.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error(
        "there is no revocation list in it (no BEGIN X509 CRL): is it another file by mistake?"
    )]
    NoList,
    #[error("a revocation list in it is damaged: fetch it again")]
    Damaged,
    #[error(
        "the revocation list of `{issuer}` in it was to be replaced by {next_update}, and the device's clock says {now}: fetch the \
         authority's current list and put it there"
    )]
    Expired {
        issuer: String,
        next_update: Timestamp,
        now: Timestamp,
    },
}

impl RevocationList {
    /// The lists in a PEM file, of which there is at least one.
    pub fn read(pem: &[u8]) -> Result<Vec<RevocationList>, RevocationError> {
        let lists = CertificateRevocationListDer::pem_slice_iter(pem)
            .map(|der| RevocationList::parse(der.map_err(|_| RevocationError::Damaged)?))
            .collect::<Result<Vec<_>, _>>()?;
        if lists.is_empty() {
            return Err(RevocationError::NoList);
        }
        Ok(lists)
    }

    /// The same, none of which was to be replaced by now.
    pub fn read_current(
        pem: &[u8],
        now: Timestamp,
    ) -> Result<Vec<RevocationList>, RevocationError> {
        let lists = RevocationList::read(pem)?;
        for list in &lists {
            if let Some(next_update) = list.next_update.filter(|until| now > *until) {
                let issuer = list.issuer.clone();
                return Err(RevocationError::Expired {
                    issuer,
                    next_update,
                    now,
                });
            }
        }
        Ok(lists)
    }

    fn parse(
        der: CertificateRevocationListDer<'static>,
    ) -> Result<RevocationList, RevocationError> {
        let (_, list) = parse_x509_crl(der.as_ref()).map_err(|_| RevocationError::Damaged)?;
        let next_update = list.next_update().map(|time| time.timestamp());
        Ok(RevocationList {
            issuer: list.issuer().to_string(),
            next_update: next_update
                .map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000))),
            revoked: list.iter_revoked_certificates().count(),
            der,
        })
    }
}
