// Package seccomp turns a profile, as Docker and the OCI runtime specification write it, into a BPF program for
// seccomp(2).
//
// For each architecture of the profile (on x86-64 also the calls of 32-bit programs and those of x32) the program
// finds the system call's number in a tree of comparisons. Where an argument decides, the rules of that call are
// tried in order:
//
//	load arch; which? ----- unknown ----> kill the process
//	  load nr
//	  nr < middle? ... nr < middle? ----> action of this range of numbers
//	                                 \--> a call with conditions:
//	                                      load argument, high half, low half; compare; action or next rule
//
// What a profile means where the specification leaves it open is what libseccomp and runc make of it:
//
//   - A rule without conditions wins over all rules with conditions for the same call; of several rules of one
//     kind, the first one that applies.
//   - Two conditions of one rule on the same argument are alternatives; conditions on different arguments must all
//     hold (runc, libcontainer/seccomp matchCall).
//   - A call that the profile does not name because it is newer than all that it names fails with ENOSYS, so that
//     programs fall back to what they used before, if the default action denies (runc, libcontainer/seccomp/patchbpf).
//   - Names that an architecture does not have are passed over; one that none has, too: it is too new for us.
//   - SCMP_ACT_NOTIFY is refused: nobody would answer.
package seccomp

//go:generate go run generate.go
