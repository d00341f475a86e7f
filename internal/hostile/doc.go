// Package hostile tests the queues against what they must survive: requests and answers that are lost at the worst
// moment, claims and finishes whose outcome is unknown, a service that is busy or out of numbers, and nodes whose bytes
// another client made up. It has test files only, and uses the public API alone.
package hostile
