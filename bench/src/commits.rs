//! Counts the commits of the engine's store, by listening to the one figure that tells each. Everything else that is recorded
//! meets a recorder too, as in a real runner, and is dropped.

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BATCHES: &str = "nexaas_store_batch_writes";

#[derive(Debug, Default)]
struct Batches(AtomicU64);

impl HistogramFn for Batches {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Listener(Arc<Batches>);

impl Recorder for Listener {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() == BATCHES { Histogram::from_arc(self.0.clone()) } else { Histogram::noop() }
    }
}

static COUNTED: std::sync::OnceLock<Arc<Batches>> = std::sync::OnceLock::new();

/// Commits of every store of this process since the first call.
pub fn commits() -> u64 {
    let batches = COUNTED.get_or_init(|| {
        let batches = Arc::new(Batches::default());
        // Fails when a recorder is installed already, which nothing in this program does.
        let _ = metrics::set_global_recorder(Listener(batches.clone()));
        batches
    });
    batches.0.load(Ordering::Relaxed)
}
