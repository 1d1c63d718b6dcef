// Package model is a filesystem in memory that does what the manual pages promise, a generator of operations on
// it, and an executor that does the same operations on a real tree. Where the two differ, one of them is wrong.
//
// A run goes through these parts:
//
//	Layer entries --Merge-->  Tree (what the union must show)      --Apply--> Want
//	      |                     ^ Gen looks here for the next Op                |  compared after every Op
//	      +------Write------> directories --mount--> Exec          --Do-----> Result
//
// Merge works on the description of the layers, never on what lies on disk, so that it is independent of the code
// under test. The whole tree is compared by Snapshot at every "check" operation: names, types in listings, inode
// numbers (unique, never changing while the object lives), attributes, contents, extended attributes.
//
// Everything that happens in a run is an Op, opens and remounts included, and an Op is one line of text. So a run
// that fails is a text file (Record), which Shrink makes small and a test replays for ever after.
//
// What the model does not hold, because the kernel decides it before a filesystem is asked: permission checks (the
// runs are root's), "." and "..", trailing slashes. They belong to the conformance suite.
package model
