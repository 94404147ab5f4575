//! Credentials in a file, in the form of the tools of AWS.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use object_store::{CredentialProvider, aws::AwsCredential};

use crate::{
    named_file::{self, Unreadable},
    wording,
};

/// The profile that counts.
const PROFILE: &str = "default";

/// Reads the file anew each time, so that rotated credentials count at once.
#[derive(Debug)]
pub(super) struct CredentialsFile(pub(super) PathBuf);

/// What is wrong with the file; what it holds is never told.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    /// In words: as a cause it would be taken for trouble of the store's own directory.
    #[error("{}", wording::of(.0))]
    Unreadable(Unreadable),
    #[error(
        "blob.credentials_file {} must have `aws_access_key_id` and `aws_secret_access_key` in its section [{PROFILE}]",
        .0.display()
    )]
    Lacking(PathBuf),
}

impl From<Wrong> for object_store::Error {
    fn from(wrong: Wrong) -> Self {
        Self::Generic { store: "S3", source: Box::new(wrong) }
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let text = named_file::read("blob.credentials_file", &self.0).await.map_err(Wrong::Unreadable)?;
        let credential = read(&text).ok_or_else(|| Wrong::Lacking(self.0.clone()))?;
        Ok(Arc::new(credential))
    }
}

fn read(text: &str) -> Option<AwsCredential> {
    let mut section = "";
    let mut found = [const { None }; 3];
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((key, value)) = line.split_once('=').filter(|_| section == PROFILE) {
            let place = match key.trim() {
                "aws_access_key_id" => 0,
                "aws_secret_access_key" => 1,
                "aws_session_token" => 2,
                _ => continue,
            };
            found[place] = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    let [key_id, secret_key, token] = found;
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_counts() {
        let text = "# mine\n[other]\naws_access_key_id = no\naws_secret_access_key=no\n\n[default]\n\
                    aws_access_key_id = AK\naws_secret_access_key=s3=cret\nregion = eu\n[third]\naws_access_key_id = no\n";
        let read_once = read(text).unwrap();
        assert_eq!((&*read_once.key_id, &*read_once.secret_key, read_once.token), ("AK", "s3=cret", None));
        let with_token = format!("{text}[default]\naws_session_token = t\n");
        assert_eq!(read(&with_token).unwrap().token.as_deref(), Some("t"));
        for lacking in
            ["", "[default]", "[default]\naws_access_key_id = AK\naws_secret_access_key =", "aws_access_key_id=a"]
        {
            assert!(read(lacking).is_none(), "{lacking}");
        }
    }
}
