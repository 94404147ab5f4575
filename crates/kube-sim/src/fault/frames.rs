//! What happens to the frames of a watch on their way.

use std::{collections::VecDeque, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::time::sleep;
use tower::BoxError;

use super::{Dice, FaultyBody, connection_reset};

type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// A watch whose frames come as the weather has it.
pub(super) fn disturb<B>(dice: Dice, body: B) -> FaultyBody
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let parts: Parts = Box::pin(body.into_data_stream().map(|part| part.map_err(Into::into)));
    let watch = Watch { dice, parts, buffer: BytesMut::new(), ready: VecDeque::new(), held: None, ending: None };
    let frames = stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item.map(Frame::data), watch))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Watch {
    dice: Dice,
    parts: Parts,
    /// The beginning of a frame.
    buffer: BytesMut,
    ready: VecDeque<Bytes>,
    /// Goes out after the next one.
    held: Option<Bytes>,
    ending: Option<Ending>,
}

#[derive(Clone, Copy)]
enum Ending {
    Eof,
    Reset,
    Silence,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            match self.ending {
                Some(Ending::Eof) => return None,
                Some(Ending::Reset) => {
                    self.ending = Some(Ending::Eof);
                    return Some(Err(connection_reset()));
                }
                Some(Ending::Silence) => std::future::pending::<()>().await,
                None => {}
            }
            let Some(frame) = self.frame().await else {
                self.ready.extend(self.held.take());
                self.ending = Some(Ending::Eof);
                continue;
            };
            match frame {
                Ok(frame) => self.take(frame).await,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next whole line.
    async fn frame(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Some(Ok(self.buffer.split_to(end + 1).freeze()));
            }
            match self.parts.next().await {
                Some(Ok(part)) => self.buffer.extend_from_slice(&part),
                Some(Err(error)) => return Some(Err(error)),
                None if self.buffer.is_empty() => return None,
                None => return Some(Ok(self.buffer.split().freeze())),
            }
        }
    }

    async fn take(&mut self, frame: Bytes) {
        let dice = &mut self.dice;
        if dice.strikes("frame_delayed", |weather| weather.frame_delayed) {
            sleep(dice.delay()).await;
        }
        if dice.strikes("frame_dropped", |weather| weather.frame_dropped) {
            return;
        }
        if self.held.is_none() && dice.strikes("frame_swapped", |weather| weather.frame_swapped) {
            self.held = Some(frame);
            return;
        }
        if dice.strikes("frame_doubled", |weather| weather.frame_doubled) {
            self.ready.push_back(frame.clone());
        }
        self.ready.push_back(frame);
        self.ready.extend(self.held.take());
        self.ending = if dice.strikes("watch_ended", |weather| weather.watch_ended) {
            Some(Ending::Eof)
        } else if dice.strikes("watch_broken", |weather| weather.watch_broken) {
            Some(Ending::Reset)
        } else {
            dice.strikes("watch_silent", |weather| weather.watch_silent).then_some(Ending::Silence)
        };
    }
}
