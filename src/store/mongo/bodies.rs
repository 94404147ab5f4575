//! Bytes of any length: in the document that they belong to, or, where it could become too large for MongoDB (T110), in a
//! file of GridFS that it names.
//!
//! A file is whole before a document names it, and belongs to that document alone. One whose writer was killed in between
//! belongs to none; it costs room and nothing else.

use bytes::Bytes;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use mongodb::bson::{Binary, Bson, doc, oid::ObjectId};

use super::{Act, Mongo, documents, fault::Fault};

/// Up to this a body is in its document, which holds at most three: well within MongoDB's 16 MiB.
pub(super) const INLINE_BYTES: usize = 4 << 20;
/// Handed to GridFS at a time, so that each waits for an answer of its own.
const PIECE_BYTES: usize = 1 << 20;

/// Within the document. A text, where the bytes are one, so that people can read it.
fn inline(bytes: &[u8]) -> Option<Bson> {
    (bytes.len() <= INLINE_BYTES).then(|| match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => documents::binary(bytes),
    })
}

/// The file that a body is in.
fn file(body: &Bson) -> Option<ObjectId> {
    body.as_document()?.get_object_id("file").ok()
}

impl Mongo {
    /// What stands for these bytes in a document. What is not needed after all is to be dropped.
    pub(super) async fn put_body(&self, name: &str, bytes: &[u8]) -> Act<Bson> {
        if let Some(body) = inline(bytes) {
            return Ok(body);
        }
        let mut upload = self.within(self.files.open_upload_stream(name)).await?;
        let id = upload.id().clone();
        for piece in bytes.chunks(PIECE_BYTES) {
            self.within(upload.write_all(piece)).await?;
        }
        self.within(upload.close()).await?;
        Ok(doc! { "file": id, "bytes": documents::number(bytes.len() as u64) }.into())
    }

    pub(super) async fn read_body(&self, collection: &'static str, body: Option<&Bson>) -> Act<Bytes> {
        match body {
            Some(Bson::String(text)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Some(Bson::Binary(Binary { bytes, .. })) => Ok(Bytes::copy_from_slice(bytes)),
            Some(body) if let Some(id) = file(body) => self.read_file(id).await,
            _ => Err(Fault::Document { collection, reason: "it has no body that podherald knows".to_owned() }),
        }
    }

    async fn read_file(&self, id: ObjectId) -> Act<Bytes> {
        let mut download = self.within(self.files.open_download_stream(id.into())).await?;
        let mut bytes = Vec::new();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = self.within(download.read(&mut piece)).await?;
            if read == 0 {
                return Ok(bytes.into());
            }
            bytes.extend_from_slice(&piece[..read]);
        }
    }

    /// No document names this body, or none any more.
    pub(super) async fn drop_body(&self, body: &Bson) {
        let Some(id) = file(body) else { return };
        if let Err(fault) = self.within(self.files.delete(id.into())).await {
            let reason = self.wording.explain(fault, "delete a file that is not needed").to_string();
            tracing::warn!(file = %id, reason, "a file of GridFS that no document names stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_text_where_it_is_one_and_a_file_where_it_is_long() {
        assert_eq!(inline(b"{}"), Some("{}".into()));
        assert_eq!(inline("é\0".as_bytes()), Some("é\0".into()));
        assert_eq!(inline(b"\xff"), Some(documents::binary(b"\xff")));
        assert!(inline(&[b'a'; INLINE_BYTES]).is_some());
        assert_eq!(inline(&[b'a'; INLINE_BYTES + 1]), None);
        let id = ObjectId::new();
        assert_eq!(file(&doc! { "file": id, "bytes": 1_i64 }.into()), Some(id));
        assert_eq!(file(&"{}".into()), None);
    }
}
