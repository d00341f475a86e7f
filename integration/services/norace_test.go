//go:build !race

package services_test

const scale = 1
