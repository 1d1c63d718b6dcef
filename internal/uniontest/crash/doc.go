// Package crash kills the server and looks at what the next mount shows.
//
// TestPoints does so at every fault point of the program (package fault) in every change of more than one step, and
// TestRandom at any moment under load. What holds afterwards:
//
//   - the tree is the one before the change or the one after it, in every name, attribute and byte;
//   - the workdir holds nothing half made, and nobody had to do anything about it;
//   - the dead mount can be unmounted, and the next one needs no option and gives no warning.
//
// The trees before and after come from package model. All is in the tests.
package crash
