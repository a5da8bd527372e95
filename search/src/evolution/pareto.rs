//! Domination (Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II).

use super::Score;

/// Constrained domination (Deb et al. 2002, section VI): a point that meets its limits beats one that
/// doesn't, of two that don't the one with the smaller violation is better, and of two that do the one
/// that is nowhere worse and somewhere better.
pub fn dominates(left: &Score, right: &Score) -> bool {
    if left.violation > 0.0 || right.violation > 0.0 {
        return left.violation < right.violation;
    }
    let mut better = false;
    for (left, right) in left.objectives.iter().zip(&right.objectives) {
        if left > right {
            return false;
        }
        better |= left < right;
    }
    better
}

/// Rank of every point: 0 for those that none dominates, 1 for those that only the former dominate, and
/// so on (the fast non-dominated sort, section III-A).
pub fn non_dominated_ranks(scores: &[&Score]) -> Vec<usize> {
    let mut beaten_by = vec![0_usize; scores.len()];
    let mut beats: Vec<Vec<usize>> = vec![Vec::new(); scores.len()];
    for left in 0..scores.len() {
        for right in left + 1..scores.len() {
            if dominates(scores[left], scores[right]) {
                beats[left].push(right);
                beaten_by[right] += 1;
            } else if dominates(scores[right], scores[left]) {
                beats[right].push(left);
                beaten_by[left] += 1;
            }
        }
    }
    let mut ranks = vec![0; scores.len()];
    let mut front: Vec<usize> = (0..scores.len()).filter(|&point| beaten_by[point] == 0).collect();
    let mut rank = 0;
    while !front.is_empty() {
        let mut next = Vec::new();
        for &point in &front {
            ranks[point] = rank;
            for &other in &beats[point] {
                beaten_by[other] -= 1;
                if beaten_by[other] == 0 {
                    next.push(other);
                }
            }
        }
        rank += 1;
        front = next;
    }
    ranks
}

/// Crowding distance of each point of one front (section III-B): per objective, how far apart its two
/// neighbours are in units of the front's extent, summed; infinite at the ends.
pub fn crowding_distances(front: &[&Score]) -> Vec<f64> {
    let mut distances = vec![0.0; front.len()];
    let objectives = front.first().map_or(0, |score| score.objectives.len());
    for objective in 0..objectives {
        let value = |point: usize| front[point].objectives[objective];
        let mut order: Vec<usize> = (0..front.len()).collect();
        order.sort_by(|&left, &right| value(left).total_cmp(&value(right)));
        let (first, last) = (order[0], order[order.len() - 1]);
        distances[first] = f64::INFINITY;
        distances[last] = f64::INFINITY;
        let extent = value(last) - value(first);
        if extent > 0.0 {
            for window in order.windows(3) {
                distances[window[1]] += (value(window[2]) - value(window[0])) / extent;
            }
        }
    }
    distances
}

/// Indices of the points that no other dominates, all objectives minimised, by rising first objective.
/// Of points that are alike the first is kept.
pub fn pareto_front(points: &[Vec<f64>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    // Whatever dominates a point comes before it in lexicographic order.
    order.sort_by(|&left, &right| {
        let pairs = points[left].iter().zip(&points[right]);
        pairs
            .map(|(left, right)| left.total_cmp(right))
            .find(|order| order.is_ne())
            .unwrap_or(left.cmp(&right))
    });
    let mut front: Vec<usize> = Vec::new();
    for point in order {
        let covers = |&kept: &usize| points[kept].iter().zip(&points[point]).all(|(kept, new)| kept <= new);
        // In two dimensions the last one decides.
        if !front.iter().rev().any(covers) {
            front.push(point);
        }
    }
    front
}
