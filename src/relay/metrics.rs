//! What the relays say of themselves in `/metrics`. It is taken when asked.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::Progress;
use crate::health::SinkHealth;

/// Name, help, and how to come by it.
type Told<T> = (&'static str, &'static str, fn(&SinkHealth) -> T);

/// All sinks, each series with the label `sink`.
#[derive(Debug)]
pub struct Metrics(pub Vec<Progress>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let sinks: Vec<SinkHealth> = self.0.iter().map(Progress::health).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of events that are kept on one disk")]
        let gauges: [Told<f64>; 3] = [
            ("lag_events", "Events that the sink has not acknowledged yet", |sink| sink.lag_events as f64),
            ("lag_seconds", "Time since the sink had all there was", |sink| sink.lag_seconds),
            ("failing", "1 while the last try failed", |sink| f64::from(u8::from(sink.failing))),
        ];
        for (name, help, value) in gauges {
            let series = sinks.iter().map(|sink| (sink.name, ConstGauge::new(value(sink))));
            encode(&mut encoder, name, help, MetricType::Gauge, series)?;
        }
        let counters: [Told<u64>; 5] = [
            ("delivered_events", "Events that the sink acknowledged, since the start", |sink| sink.delivered),
            ("retries", "Tries that failed, since the start", |sink| sink.retries),
            ("rejected_events", "Events that the sink can never carry, since the start", |sink| sink.rejected),
            (
                "result_unproven_events",
                "Events that the sink can never carry and that end an attempt, since the start",
                |sink| sink.result_unproven,
            ),
            ("missed_events", "Events that retention took before the sink had them, ever", |sink| sink.missed),
        ];
        for (name, help, value) in counters {
            let series = sinks.iter().map(|sink| (sink.name, ConstCounter::new(value(sink))));
            encode(&mut encoder, name, help, MetricType::Counter, series)?;
        }
        Ok(())
    }
}

fn encode<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    series: impl Iterator<Item = (&'static str, M)>,
) -> fmt::Result {
    let name = format!("podherald_sink_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
    for (sink, metric) in series {
        metric.encode(family.encode_family(&[("sink", sink)])?)?;
    }
    Ok(())
}
