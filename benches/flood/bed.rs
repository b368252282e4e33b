//! One measurement: an honest program, alone and beside a flood.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::mount::Mount;

/// A flood. Each call sends so many packets, or does so many operations, of it.
pub(crate) type Flood<'a> = Box<dyn FnMut(usize) -> io::Result<()> + Send + 'a>;

/// How a flood is measured.
pub(crate) struct Bed {
    pub(crate) seconds: f64,
}

/// The results of one flood.
pub(crate) struct Outcome {
    /// Bytes before, at most during, and after it.
    pub(crate) memory: [u64; 3],
    /// Round trips before and during it.
    pub(crate) times: [Times; 2],
    /// Packets or operations a second, as it came to be.
    pub(crate) rate: f64,
}

/// Quantiles of round trips.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Pause between two rounds of a flood.
const ROUND: Duration = Duration::from_millis(1);
/// Longest round trip that is told from longer ones, nanoseconds, and digits that count. What is kept of
/// the times takes so much memory and no more: it is measured with the stack's.
const LONGEST: u64 = 10_000_000_000;
const DIGITS: u8 = 3;

impl Bed {
    /// Measures a flood of so many packets or operations a second.
    pub(crate) fn measure(
        &self,
        mount: &Mount,
        rate: f64,
        mut flood: Flood<'_>,
    ) -> io::Result<Outcome> {
        let span = Duration::from_secs_f64(self.seconds);
        let mut honest = mount.honest()?;
        let mut most = 0;
        rounds(span / 4, &mut honest, || Ok(()))?;
        let before = mount.memory();
        let alone = rounds(span, &mut honest, || Ok(()))?;
        let stop = AtomicBool::new(false);
        let (beside, rate) = thread::scope(|scope| {
            let flooding = scope.spawn(|| pace(&mut flood, rate, &stop));
            let beside = rounds(span, &mut honest, || {
                most = most.max(mount.memory());
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            let rate = flooding
                .join()
                .map_err(|_| io::Error::other("a flood panicked"))?;
            Ok::<_, io::Error>((beside?, rate?))
        })?;
        most = most.max(mount.memory());
        // What it holds open goes with it.
        drop(flood);
        rounds(span / 2, &mut honest, || Ok(()))?;
        Ok(Outcome {
            memory: [before, most, mount.memory()],
            times: [alone, beside],
            rate,
        })
    }
}

/// Floods at a rate until it is stopped. Returns the rate as it came to be.
fn pace(flood: &mut Flood<'_>, rate: f64, stop: &AtomicBool) -> io::Result<f64> {
    let start = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * rate;
        // What could not be sent in time is not made up for.
        let most = (rate / 500.0).ceil() as usize;
        let now = (due as usize).saturating_sub(sent).min(most);
        if now > 0 {
            flood(now)?;
            sent += now;
        }
        thread::sleep(ROUND);
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

/// Has the honest program make round trips for a while; looks around now and then.
fn rounds(
    span: Duration,
    honest: &mut dyn FnMut() -> io::Result<()>,
    mut look: impl FnMut() -> io::Result<()>,
) -> io::Result<Times> {
    let start = Instant::now();
    let mut times = Histogram::<u64>::new_with_max(LONGEST, DIGITS).map_err(io::Error::other)?;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    while start.elapsed() < span {
        let begin = Instant::now();
        honest()?;
        times.saturating_record(nanos(begin.elapsed()));
        if times.len().is_multiple_of(256) {
            look()?;
        }
    }
    let at = |quantile| Duration::from_nanos(times.value_at_quantile(quantile));
    Ok(Times {
        p50: at(0.5),
        p99: at(0.99),
    })
}
