//! What is printed, and how samples become one figure.

/// The value below which `percent` of the sorted samples lie (nearest rank).
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The middle of `samples`, which a noisy neighbour moves least.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    match samples.len() {
        0 => f64::NAN,
        count if count % 2 == 0 => f64::midpoint(samples[count / 2 - 1], samples[count / 2]),
        count => samples[count / 2],
    }
}

/// `name: value`, with as many decimals as the size of the value deserves.
pub fn print(name: &str, value: f64) {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    println!("{name}: {value:.decimals$}");
}

/// `<name>_p50_ms` and `<name>_p99_ms`, with `suffix` behind.
pub fn print_percentiles(name: &str, suffix: &str, samples: &[f64]) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    print(&format!("{name}_p50_ms{suffix}"), percentile(&sorted, 50.0));
    print(&format!("{name}_p99_ms{suffix}"), percentile(&sorted, 99.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(percentile(&samples, 50.0), 10.0);
        assert_eq!(percentile(&samples, 99.0), 20.0);
        assert_eq!(percentile(&[3.0], 50.0), 3.0);
        assert!(percentile(&[], 50.0).is_nan());
    }

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
