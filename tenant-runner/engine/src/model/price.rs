//! What a model's tokens cost. Prices are list prices in billionths of a US dollar per token, which makes "3 dollars per
//! million tokens" the whole number 3000, so that sums are exact.

use super::TokenUsage;

/// Input and output; what is read from or written to the prompt cache is a fixed share of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub output: u64,
}

/// By the beginning of the model's name; the longest that fits counts.
const TABLE: &[(&str, Price)] = &[
    ("claude-opus-4-5", Price { input: 5_000, output: 25_000 }),
    ("claude-opus", Price { input: 15_000, output: 75_000 }),
    ("claude-3-opus", Price { input: 15_000, output: 75_000 }),
    ("claude-sonnet", Price { input: 3_000, output: 15_000 }),
    ("claude-3-7-sonnet", Price { input: 3_000, output: 15_000 }),
    ("claude-3-5-sonnet", Price { input: 3_000, output: 15_000 }),
    ("claude-haiku-4-5", Price { input: 1_000, output: 5_000 }),
    ("claude-haiku", Price { input: 1_000, output: 5_000 }),
    ("claude-3-5-haiku", Price { input: 800, output: 4_000 }),
    ("claude-3-haiku", Price { input: 250, output: 1_250 }),
];

/// A model that is not in the table is priced as the dearest that is: a budget must not be exceeded for want of an entry.
const UNKNOWN: Price = Price { input: 15_000, output: 75_000 };

pub fn price(model: &str) -> Price {
    let fitting = TABLE.iter().filter(|(start, _)| model.starts_with(start)).max_by_key(|(start, _)| start.len());
    fitting.map_or(UNKNOWN, |(_, price)| *price)
}

/// What a call cost, in billionths of a dollar.
pub fn cost_nano_usd(model: &str, usage: &TokenUsage) -> u64 {
    let Price { input, output } = price(model);
    let written = usage.cache_creation_tokens.saturating_mul(input).saturating_mul(5) / 4;
    let read = usage.cache_read_tokens.saturating_mul(input) / 10;
    let fresh = usage.input_tokens.saturating_mul(input).saturating_add(usage.output_tokens.saturating_mul(output));
    fresh.saturating_add(written).saturating_add(read)
}

/// Billionths as dollars, for people.
pub fn dollars(nano: i64) -> f64 {
    nano as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_costs_what_the_list_says() {
        let usage = TokenUsage {
            input_tokens: 1_000_000,
            output_tokens: 1_000_000,
            cache_read_tokens: 1_000_000,
            cache_creation_tokens: 1_000_000,
        };
        assert_eq!(dollars(cost_nano_usd("claude-sonnet-4-5", &usage).cast_signed()), 3.0 + 15.0 + 0.3 + 3.75);
        assert_eq!(dollars(cost_nano_usd("claude-sonnet-4-5-20250929", &usage).cast_signed()), 22.05);
    }

    #[test]
    fn the_longest_name_that_fits_counts_and_an_unknown_model_is_the_dearest() {
        assert_eq!(price("claude-opus-4-5-20251101").input, 5_000);
        assert_eq!(price("claude-opus-4-1").input, 15_000);
        assert!(TABLE.iter().all(|(_, p)| p.input <= UNKNOWN.input && p.output <= UNKNOWN.output));
        assert_eq!(price("some-new-model"), UNKNOWN);
    }

    #[test]
    fn an_absurd_count_does_not_overflow() {
        let usage = TokenUsage { input_tokens: u64::MAX, output_tokens: u64::MAX, ..TokenUsage::default() };
        assert_eq!(cost_nano_usd("x", &usage), u64::MAX);
    }
}
