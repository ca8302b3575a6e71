//! How the rows of a terminal are shared out among the sections of the board.

/// Rows that a section would like, its title included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Who is served first; each section has a rank of its own, from 0.
    pub(super) rank: usize,
    /// With fewer it is left out.
    pub(super) least: u16,
    /// With more it has nothing to show.
    pub(super) most: u16,
}

/// The rows that each section gets: by rank what it needs at least, then one more in turn as long
/// as there are any. Zero for a section that is left out.
pub(super) fn shares<const N: usize>(height: u16, wishes: &[Wish; N]) -> [u16; N] {
    let (mut shares, mut free) = ([0; N], height);
    for rank in 0..N {
        let sections = shares.iter_mut().zip(wishes);
        for (share, wish) in sections.filter(|(_, wish)| wish.rank == rank) {
            if wish.least <= free {
                *share = wish.least;
                free -= wish.least;
            }
        }
    }
    loop {
        let before = free;
        for (share, wish) in shares.iter_mut().zip(wishes) {
            if free > 0 && *share > 0 && *share < wish.most {
                *share += 1;
                free -= 1;
            }
        }
        if free == before {
            return shares;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn wish(rank: usize, least: u16, most: u16) -> Wish {
        Wish { rank, least, most }
    }

    #[test]
    fn who_ranks_first_gets_its_rows_first() {
        let wishes = [wish(1, 3, 9), wish(0, 2, 2), wish(2, 4, 4)];
        assert_eq!(shares(6, &wishes), [4, 2, 0]);
        assert_eq!(shares(9, &wishes), [3, 2, 4]);
        assert_eq!(shares(1, &wishes), [0, 0, 0]);
    }

    #[test]
    fn rows_that_are_left_are_given_in_turn() {
        let wishes = [wish(0, 1, 10), wish(1, 1, 3), wish(2, 1, 10)];
        assert_eq!(shares(9, &wishes), [3, 3, 3]);
        assert_eq!(shares(11, &wishes), [4, 3, 4]);
        assert_eq!(shares(40, &wishes), [10, 3, 10]);
    }
}
