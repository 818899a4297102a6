//! Recurrent operators: gradients against finite differences, lengths, and the layouts.

use super::gradients::{Case, check};
use super::*;
use crate::graph::*;

const LSTM: Cell = Cell::Lstm { input_forget: false };
const GRU: Cell = Cell::Gru { linear_before_reset: false };

fn kept<T>(list: Vec<T>) -> &'static [T] {
    Box::leak(list.into_boxed_slice())
}

/// Constants: no gradient reaches them.
fn fixed(seed: u64, shape: &[usize]) -> In {
    let data = noise(seed, shape.iter().product()).into_iter().map(|v| 0.8 * v).collect();
    In::Typed(DType::F64, kept(shape.to_vec()), kept(data))
}

/// Operands for 4 steps, a batch of 2, 3 elements of the input and 2 of the state.
fn operands(r: &Recurrent, lengths: bool, peepholes: bool) -> Vec<In> {
    let (ways, rows) = (r.direction.reversed().len(), 2 * r.cell.gates());
    let states = || if r.batch_first { x(kept(vec![2, ways, 2])) } else { x(kept(vec![ways, 2, 2])) };
    let mut list = vec![if r.batch_first { x(&[2, 4, 3]) } else { x(&[4, 2, 3]) }];
    list.push(fixed(11, &[ways, rows, 3]));
    list.push(fixed(12, &[ways, rows, 2]));
    list.push(fixed(13, &[ways, 2 * rows]));
    list.push(if lengths { In::Typed(DType::I32, &[2], &[3.0, 4.0]) } else { In::Absent });
    list.push(states());
    if matches!(r.cell, Cell::Lstm { .. }) {
        list.push(states());
        list.extend(peepholes.then(|| fixed(14, &[ways, 6])));
    }
    list
}

fn case(cell: Cell, direction: Direction, change: &dyn Fn(&mut Recurrent), lengths: bool) -> Case {
    let mut r = Recurrent::new(cell, direction);
    change(&mut r);
    let results = if matches!(cell, Cell::Lstm { .. }) { 3 } else { 2 };
    let inputs = operands(&r, lengths, direction != Direction::Forward);
    (Op::Recurrent(r), inputs, results)
}

#[test]
fn gradients_pass_through_every_cell() {
    use Direction::*;
    let none = |_: &mut Recurrent| {};
    for direction in [Forward, Reverse, Bidirectional] {
        for cell in [Cell::Rnn, GRU, Cell::Gru { linear_before_reset: true }, LSTM, Cell::Lstm { input_forget: true }] {
            check(&case(cell, direction, &none, false));
        }
    }
    for cell in [Cell::Rnn, GRU, LSTM] {
        check(&case(cell, Bidirectional, &|r| r.batch_first = true, true));
        check(&case(cell, Reverse, &|r| r.clip = Some(0.7), true));
        let other = |r: &mut Recurrent| {
            let last = r.activations.len() - 1;
            r.activations[0] = Activation::Affine { alpha: 0.3, beta: 0.1 };
            r.activations[last] = Activation::ScaledTanh { alpha: 1.2, beta: 0.7 };
        };
        check(&case(cell, Forward, &other, false));
    }
}

#[test]
fn states_behind_the_end_of_a_sequence_are_zero() {
    let (op, inputs, _) = case(LSTM, Direction::Reverse, &|_| {}, true);
    let [y, last, memory]: [Array<f64>; 3] = run(&op, &inputs, 3).try_into().unwrap();
    // [step, direction, batch, state]: the first sequence has 3 steps, the second one 4.
    assert!(y.data[12..14].iter().all(|&v| v == 0.0) && y.data[14..].iter().all(|&v| v != 0.0), "{y:?}");
    assert_eq!(last.data, y.data[..4], "in reverse the first step comes last");
    assert_eq!((y.shape, last.shape, memory.shape), (vec![4, 1, 2, 2], vec![1, 2, 2], vec![1, 2, 2]));
}

#[test]
fn the_batch_may_come_first() {
    for cell in [Cell::Rnn, GRU, LSTM] {
        let (op, mut inputs, results) = case(cell, Direction::Bidirectional, &|_| {}, true);
        let steps_first = run(&op, &inputs, results);
        let Op::Recurrent(r) = op else { unreachable!() };
        let swapped = |data: &[f64], [a, b, c]: [usize; 3]| -> Vec<f64> {
            (0..a * b * c).map(|i| data[(i / c % a * b + i / c / a) * c + i % c]).collect()
        };
        let float = |shape: &[usize], data: Vec<f64>| In::Floats(kept(shape.to_vec()), kept(data));
        let all = arrays(&inputs);
        inputs[0] = float(&[2, 4, 3], swapped(&all[0].as_ref().unwrap().data, [4, 2, 3]));
        for i in 5..inputs.len().min(7) {
            inputs[i] = float(&[2, 2, 2], swapped(&all[i].as_ref().unwrap().data, [2, 2, 2]));
        }
        let batch_first = run(&Op::Recurrent(Recurrent { batch_first: true, ..r }), &inputs, results);
        assert_eq!(batch_first[0].shape, [2, 4, 2, 2]);
        for (a, b) in steps_first.iter().zip(&batch_first).skip(1) {
            assert_eq!(swapped(&a.data, [2, 2, 2]), b.data);
        }
        // [step, direction, batch, state] against [batch, step, direction, state].
        for i in 0..32 {
            let (step, way, batch, k) = (i / 8, i / 4 % 2, i / 2 % 2, i % 2);
            assert_eq!(steps_first[0].data[i], batch_first[0].data[batch * 16 + step * 4 + way * 2 + k]);
        }
    }
}

#[test]
fn a_step_by_hand() {
    let one = |v: &'static [f64]| In::Floats(&[1, 1, 1], v);
    let rnn = Op::Recurrent(Recurrent::new(Cell::Rnn, Direction::Forward));
    let biases = In::Floats(&[1, 2], &[0.25, -0.05]);
    let y = run(&rnn, &[one(&[2.0]), one(&[0.5]), one(&[3.0]), biases, In::Absent, one(&[0.1])], 2);
    assert_eq!(y[0].data, [(2.0f64 * 0.5 + 3.0 * 0.1 + 0.25 - 0.05).tanh()]);
    assert_eq!(y[1].data, y[0].data);
}
