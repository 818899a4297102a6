//! One option of each group, so that costs stay within two budgets and the sum of errors is smallest: the
//! multiple-choice knapsack problem, solved exactly.
//!
//! Groups are decided one after the other. Of the partial selections those are kept that no other one beats in all
//! respects and that may still become better than the best selection known. What is to come is bounded from below by
//! its Lagrangian relaxation: costs have a price instead of a budget (Kellerer, Pferschy, Pisinger, "Knapsack Problems",
//! 2004, chapter 11).

use std::collections::BTreeMap;

/// An option of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// 0 or more.
    pub error: f64,
    /// What it takes of each budget.
    pub costs: [u64; 2],
}

/// Rounds in which the prices of both budgets are set in turn.
const ROUNDS: usize = 6;
/// Halvings of the logarithm of the range in which a price lies, and that range.
const HALVINGS: usize = 60;
const RANGE: f64 = 1e40;
/// Partial selections that are followed to find a good one first.
const BEAM: usize = 1000;
/// What sums may be off by rounding, as a share of their largest part.
const ROUNDING: f64 = 1e-12;

/// A selection of the groups decided so far.
#[derive(Debug, Clone, Copy)]
struct State {
    error: f64,
    costs: [u64; 2],
    /// Position of the selection that it extends.
    before: usize,
    /// Option of the last group.
    option: usize,
}

/// Errors of every rest of the groups are at least `rest`, per group that it begins with, less what is left of the
/// budgets at `prices`.
struct Bound {
    prices: [f64; 2],
    rest: Vec<f64>,
}

/// The option of each group, in order; `None` where no selection is within both `budgets`.
pub(super) fn solve(groups: &[Vec<Choice>], budgets: [u64; 2]) -> Option<Vec<usize>> {
    let prices = prices(groups, budgets);
    // Where one option stands out, it is soon alone; groups where several are close come last.
    let lead = |group: &Vec<Choice>| {
        let mut all: Vec<f64> = group.iter().map(|c| priced(c, prices)).collect();
        all.sort_by(f64::total_cmp);
        all.get(1).map_or(f64::INFINITY, |second| second - all[0])
    };
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| lead(&groups[b]).total_cmp(&lead(&groups[a])));
    let search = Search::new(order.iter().map(|&g| groups[g].clone()).collect(), budgets, prices);
    // A good selection first: the better the one that is known, the fewer others are worth a look.
    let quick = search.run(f64::INFINITY, BEAM);
    let known = quick.as_ref().map_or(f64::INFINITY, |options| total(&search.groups, options).error);
    let found = search.run(known, usize::MAX).or(quick)?;
    let mut options = vec![0; groups.len()];
    order.iter().zip(found).for_each(|(&group, option)| options[group] = option);
    Some(options)
}

/// A problem with what is known about every rest of its groups.
struct Search {
    groups: Vec<Vec<Choice>>,
    budgets: [u64; 2],
    bounds: [Bound; 5],
    /// What the groups from each one on take of each budget at least.
    least: Vec<[u64; 2]>,
}

impl Search {
    fn new(groups: Vec<Vec<Choice>>, budgets: [u64; 2], prices: [f64; 2]) -> Self {
        let least = rests(&groups, [0; 2], |rest, group| {
            let cheapest = |i: usize| group.iter().map(|c| c.costs[i]).min().unwrap_or(0);
            add(rest, [cheapest(0), cheapest(1)])
        });
        // Prices that are best for the whole are not best for every rest.
        let bounds = [1.0, 0.25, 0.5, 2.0, 4.0].map(|factor| Bound::new(&groups, prices.map(|p| p * factor)));
        Search { groups, budgets, bounds, least }
    }

    /// The best selection with an error of at most `known`, about, of those that the `width` most promising partial
    /// ones lead to after every group.
    fn run(&self, known: f64, width: usize) -> Option<Vec<usize>> {
        let mut steps = vec![vec![State { error: 0.0, costs: [0; 2], before: 0, option: 0 }]];
        for (number, group) in self.groups.iter().enumerate() {
            let mut next = Vec::new();
            for (before, state) in steps[number].iter().enumerate() {
                for (option, choice) in group.iter().enumerate() {
                    let costs = add(state.costs, choice.costs);
                    let error = state.error + choice.error;
                    let least = add(costs, self.least[number + 1]);
                    let fits = least[0] <= self.budgets[0] && least[1] <= self.budgets[1];
                    let next_one = State { error, costs, before, option };
                    if fits && !self.bounds.iter().any(|b| b.exceeds(known, &next_one, number + 1, self.budgets)) {
                        next.push(next_one);
                    }
                }
            }
            let mut next = undominated(next, |s| Choice { error: s.error, costs: s.costs });
            if next.len() > width {
                let promise = |state: &State| self.bounds[0].of(state, number + 1, self.budgets);
                next.sort_by(|a, b| promise(a).total_cmp(&promise(b)));
                next.truncate(width);
            }
            steps.push(next);
        }
        let last = steps.last()?;
        let mut at = (0..last.len()).min_by(|&a, &b| last[a].error.total_cmp(&last[b].error))?;
        let mut options = vec![0; self.groups.len()];
        for (option, states) in options.iter_mut().zip(&steps[1..]).rev() {
            *option = states[at].option;
            at = states[at].before;
        }
        Some(options)
    }
}

impl Bound {
    fn new(groups: &[Vec<Choice>], prices: [f64; 2]) -> Self {
        let cheapest = |group: &Vec<Choice>| group.iter().map(|c| priced(c, prices)).fold(f64::INFINITY, f64::min);
        Bound { prices, rest: rests(groups, 0.0, |rest, group| rest + cheapest(group)) }
    }

    /// What is left of `budgets` after `state`, at the prices.
    fn worth(&self, state: &State, budgets: [u64; 2]) -> f64 {
        let left = |i: usize| self.prices[i] * budgets[i].saturating_sub(state.costs[i]) as f64;
        left(0) + left(1)
    }

    /// Error that `state`, of the groups before `group`, ends with at least.
    fn of(&self, state: &State, group: usize, budgets: [u64; 2]) -> f64 {
        state.error + self.rest[group] - self.worth(state, budgets)
    }

    /// Whether `state` surely ends with an error above `known`.
    fn exceeds(&self, known: f64, state: &State, group: usize, budgets: [u64; 2]) -> bool {
        let largest = state.error + self.rest[group] + self.worth(state, budgets);
        self.of(state, group, budgets) > known + ROUNDING * largest
    }
}

pub(super) fn add(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
}

fn priced(choice: &Choice, prices: [f64; 2]) -> f64 {
    choice.error + prices[0] * choice.costs[0] as f64 + prices[1] * choice.costs[1] as f64
}

/// Sums over the groups from each one on, and 0 behind the last.
fn rests<T: Copy>(groups: &[Vec<Choice>], zero: T, sum: impl Fn(T, &Vec<Choice>) -> T) -> Vec<T> {
    let mut rests = vec![zero];
    for group in groups.iter().rev() {
        rests.push(sum(rests[rests.len() - 1], group));
    }
    rests.reverse();
    rests
}

/// `list` without what something else is not above in error nor in either cost.
pub(super) fn undominated<T>(mut list: Vec<T>, choice: impl Fn(&T) -> Choice) -> Vec<T> {
    list.sort_by(|a, b| {
        let (a, b) = (choice(a), choice(b));
        a.costs.cmp(&b.costs).then(a.error.total_cmp(&b.error))
    });
    // The least error for a second cost and below, of what has no larger first cost.
    let mut stairs: BTreeMap<u64, f64> = BTreeMap::new();
    list.retain(|item| {
        let Choice { error, costs: [_, cost] } = choice(item);
        if stairs.range(..=cost).next_back().is_some_and(|(_, &least)| least <= error) {
            return false;
        }
        while let Some((&above, _)) = stairs.range(cost..).next().filter(|&(_, &e)| e >= error) {
            stairs.remove(&above);
        }
        stairs.insert(cost, error);
        true
    });
    list
}

/// The option of each group that is cheapest at `prices`.
fn cheapest(groups: &[Vec<Choice>], prices: [f64; 2]) -> Vec<usize> {
    let best = |group: &Vec<Choice>| {
        let order = |&a: &usize, &b: &usize| priced(&group[a], prices).total_cmp(&priced(&group[b], prices));
        (0..group.len()).min_by(order).unwrap_or(0)
    };
    groups.iter().map(best).collect()
}

fn total(groups: &[Vec<Choice>], options: &[usize]) -> Choice {
    groups.iter().zip(options).fold(Choice { error: 0.0, costs: [0; 2] }, |sum, (group, &option)| Choice {
        error: sum.error + group[option].error,
        costs: add(sum.costs, group[option].costs),
    })
}

/// The prices at which what is cheapest just stays within `budgets`, about: they give the highest lower bound.
fn prices(groups: &[Vec<Choice>], budgets: [u64; 2]) -> [f64; 2] {
    let mut prices = [0.0; 2];
    for round in 0..2 * ROUNDS {
        let i = round % 2;
        let at = |price| if i == 0 { [price, prices[1]] } else { [prices[0], price] };
        let fits = |price| total(groups, &cheapest(groups, at(price))).costs[i] <= budgets[i];
        if fits(0.0) {
            prices[i] = 0.0;
            continue;
        }
        // At this price the least of cost `i` counts more than anything else.
        let most = |group: &Vec<Choice>| group.iter().map(|c| priced(c, at(0.0))).fold(0.0, f64::max);
        let mut high = (1.0 + groups.iter().map(most).sum::<f64>()).ln();
        let mut low = high - RANGE.ln();
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            *(if fits(middle.exp()) { &mut high } else { &mut low }) = middle;
        }
        prices[i] = high.exp();
    }
    prices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::philox::Stream;

    /// The least error, by trying every selection.
    fn brute(groups: &[Vec<Choice>], budgets: [u64; 2]) -> Option<f64> {
        let Some((first, rest)) = groups.split_first() else { return Some(0.0) };
        let with = |c: &Choice| {
            let left = [budgets[0].checked_sub(c.costs[0])?, budgets[1].checked_sub(c.costs[1])?];
            Some(c.error + brute(rest, left)?)
        };
        first.iter().filter_map(with).min_by(f64::total_cmp)
    }

    /// `count` groups of up to `options` options with costs up to `most`, alike in kind to what layers cost (`falling`:
    /// errors fall with bits) or without any order.
    fn instance(seed: u64, count: usize, options: usize, most: usize, falling: bool) -> Vec<Vec<Choice>> {
        let draw = |purpose, n, bound| Stream::new(seed, 0, purpose, 0).below(n, bound);
        let (sizes, sites) = (draw(0, count, most), draw(1, count, most));
        let (errors, many) = (draw(2, count * options, 1 << 20), draw(3, count, options));
        let group = |g: usize| {
            let choice = |o: usize| {
                let error = errors[g * options + o] as f64 / (1 << 20) as f64;
                match falling {
                    true => Choice {
                        error: (errors[g * options] as f64 + 0.1 * error) * 4f64.powi(-(o as i32)),
                        costs: [(sizes[g] * (o + 2)) as u64, (sites[g] * (o + 2)) as u64],
                    },
                    false => Choice {
                        error,
                        costs: [0, 1].map(|i| ((sizes[g] * 7 + sites[g] * (i + o * 13)) % most) as u64),
                    },
                }
            };
            (0..if falling { options } else { many[g] + 1 }).map(choice).collect()
        };
        (0..count).map(group).collect()
    }

    #[test]
    fn no_selection_is_better() {
        let mut infeasible = 0;
        for seed in 0..200 {
            let falling = seed % 2 == 0;
            let groups = instance(seed, 1 + seed as usize % 7, 5, 40, falling);
            let span = |i: usize| {
                let sum = |most: bool| -> u64 {
                    let of = |g: &Vec<Choice>| {
                        let costs = g.iter().map(|c| c.costs[i]);
                        if most { costs.max() } else { costs.min() }.unwrap()
                    };
                    groups.iter().map(of).sum()
                };
                (sum(false), sum(true))
            };
            for share in [0, 1, 3, 5, 8] {
                let within = |i: usize| span(i).0 + (span(i).1 - span(i).0) * share / 8;
                for budgets in [[within(0), u64::MAX], [u64::MAX, within(1)], [within(0), within(1)]] {
                    let found = solve(&groups, budgets);
                    let best = brute(&groups, budgets);
                    assert_eq!(found.is_some(), best.is_some(), "{seed} {budgets:?}");
                    infeasible += usize::from(best.is_none());
                    let (Some(found), Some(best)) = (found, best) else { continue };
                    let sum = total(&groups, &found);
                    assert!(sum.costs[0] <= budgets[0] && sum.costs[1] <= budgets[1], "{seed} {budgets:?}");
                    assert!((sum.error - best).abs() <= 1e-12 * best.max(1e-300), "{seed}: {} for {best}", sum.error);
                }
            }
        }
        assert!(infeasible > 10, "budgets that nothing fits are among them");
    }

    #[test]
    fn choices_for_large_networks_keep_within_budgets() {
        let groups = instance(0, 200, 5, 4_000_000, true);
        let most = |i: usize| groups.iter().map(|g| g[4].costs[i]).sum::<u64>();
        for share in [3, 4, 6] {
            let within = |i: usize| most(i) * share / 6;
            for budgets in [[within(0), u64::MAX], [u64::MAX, within(1)], [within(0), within(1)]] {
                let sum = total(&groups, &solve(&groups, budgets).unwrap());
                assert!(sum.costs[0] <= budgets[0] && sum.costs[1] <= budgets[1], "{share} {budgets:?}");
            }
        }
    }
}
