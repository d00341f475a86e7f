// Package sim runs ordinary code on a store of package coordtest in an order, and with
// faults, that a seed decides. The same seed gives the same run again, so a rare
// interleaving that breaks a test can be repeated and shortened.
package sim
