//! What files with a name held where the program writes to them through shared mappings: their bytes are not in the image.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

record! {
    /// A piece of such a file, in the moment of the save.
    SharedFile, SharedFile, 32, {
        /// The file.
        path: StrRef,
        /// Offset of the piece, a multiple of a page.
        offset: U64,
        /// XXH3-64 of its bytes, with zeros up to a whole page.
        sum: U64,
        /// Its bytes.
        len: U32,
        /// Of a file in memory (tmpfs) how many blocks it had (`st_blocks`), plus one; else 0.
        blocks: U32,
    }
}
