// Package lint holds the rules of this tree that neither the compiler nor a general linter knows, as tests: which
// package may import which, and what no code here may call.
//
// A line that breaks a ban for a reason says so, on the line itself or the one above:
//
//	// lint:allow RULE: the reason
package lint
