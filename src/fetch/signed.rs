//! Whether a commit or a tag is signed by somebody who may.

use super::allowed::{AllowedSigners, NAMESPACE};
use crate::host::chain;
use crate::spec::Timestamp;
use gix::objs::{CommitRefIter, TagRefIter};
use gix::{ObjectId, Repository};
use ssh_key::{PublicKey, SshSig};

/// Who signed the commit.
///
/// # Errors
/// Why it counts as unsigned, as a sentence.
pub(super) fn commit(repository: &Repository, id: ObjectId, allowed: &AllowedSigners) -> Result<String, String> {
    let commit = repository.find_commit(id).map_err(|error| format!("reading commit {id}: {}", chain(&error)))?;
    let short = id.to_hex_with_len(12);
    let at = seconds(commit.time().map_err(|error| format!("the time of commit {short}: {}", chain(&error)))?.seconds);
    let found = CommitRefIter::signature(&commit.data, id.kind());
    match found.map_err(|error| format!("the signature of commit {short}: {}", chain(&error)))? {
        Some((signature, data)) => verified(&signature, &data.to_bstring(), at, allowed),
        None => Err("is not signed".to_owned()),
    }
    .map_err(|reason| format!("commit {short} {reason}"))
}

/// Who signed the annotated tag.
///
/// # Errors
/// As of [`commit`].
pub(super) fn tag(repository: &Repository, id: ObjectId, allowed: &AllowedSigners) -> Result<String, String> {
    let tag = repository.find_tag(id).map_err(|error| format!("reading tag {id}: {}", chain(&error)))?;
    let tagger = tag.tagger().map_err(|error| format!("the tagger of tag {id}: {}", chain(&error)))?;
    let at = tagger.and_then(|tagger| tagger.time().ok()).map_or(0, |time| time.seconds);
    match TagRefIter::signature(&tag.data) {
        Some((signature, data)) => verified(signature.data, &data.to_bstring(), seconds(at), allowed),
        None => Err("is not signed".to_owned()),
    }
    .map_err(|reason| format!("the tag {reason}"))
}

fn seconds(since_epoch: i64) -> Timestamp {
    Timestamp(u64::try_from(since_epoch).unwrap_or(0).saturating_mul(1000))
}

/// The end of a sentence when it is not.
fn verified(signature: &[u8], data: &[u8], at: Timestamp, allowed: &AllowedSigners) -> Result<String, String> {
    if !signature.trim_ascii_start().starts_with(b"-----BEGIN SSH SIGNATURE-----") {
        return Err("is signed with something else than an ssh key".to_owned());
    }
    // Continuation lines of a commit's header may leave it without its last line break.
    let mut pem = signature.trim_ascii().to_vec();
    pem.push(b'\n');
    let signature = SshSig::from_pem(&pem).map_err(|error| format!("has a signature that is none: {error}"))?;
    let key = PublicKey::from(signature.public_key().clone());
    let print = key.fingerprint(ssh_key::HashAlg::Sha256);
    key.verify(NAMESPACE, data, &signature).map_err(|error| format!("has a wrong signature of {print}: {error}"))?;
    let who = allowed.of(key.key_data(), at);
    who.map(str::to_owned).map_err(|reason| format!("is signed with the key {print}, which {reason}"))
}
