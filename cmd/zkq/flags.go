package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// These functions parse the values of flags. urfave's own parsers accept numbers like 0x5
// and 010, and durations like -1s. The error of each parser names the value and the
// allowed ones.

// parseDecimal parses a number from least to most, written in decimal digits without
// leading zeros.
func parseDecimal(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	digits := s != "" && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
	if err != nil || !digits || n < least || n > most {
		allowed := fmt.Sprintf("%d to %d", least, most)
		if most == math.MaxInt32 {
			allowed = fmt.Sprintf("%d and more", least)
		}
		return 0, fmt.Errorf("%q: allowed are %s, in decimal digits alone", s, allowed)
	}
	return n, nil
}

// parseDuration parses a duration in Go's syntax, 0 or more.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("%q: allowed are durations like 0, 1.5s, 2m or 1h30m, not negative", s)
	}
	return d, nil
}

// parsePositiveDuration parses a duration of more than 0.
func parsePositiveDuration(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d == 0 {
		err = fmt.Errorf("%q: must be more than 0", s)
	}
	return d, err
}

// parseSize parses a number of bytes, at least 1, with or without a unit.
func parseSize(s string) (uint64, error) {
	units := []struct {
		name  string
		bytes uint64
	}{{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}
	digits, unit := s, uint64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = d, u.bytes
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || digits[0] == '0' || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q: allowed are sizes from 1 byte, like 65536, 500kB, 64MiB or 2GB (kB, MB, GB; KiB, MiB, GiB)", s)
	}
	return n * unit, nil
}

// oneOf returns a parser that accepts only these words.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		for _, w := range words {
			if s == w {
				return s, nil
			}
		}
		return "", fmt.Errorf("%q: allowed are %s", s, strings.Join(words, ", "))
	}
}

// parseBoolean parses the value of a variable that stands for a flag without a value.
func parseBoolean(s string) (bool, error) {
	switch s {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q: allowed are true, 1, false, 0", s)
}

// flagValue parses a verb's flag. If the flag was not given, flagValue returns absent.
func flagValue[T any](c *cli.Context, name string, absent T, parse func(string) (T, error)) (T, error) {
	if !c.IsSet(name) {
		return absent, nil
	}
	v, err := parse(c.String(name))
	if err != nil {
		return absent, usageError("", "--%s %w", name, err)
	}
	return v, nil
}

// countFlag parses a flag that is a number from 1 to most. It returns 0 if the flag was
// not given.
func countFlag(c *cli.Context, name string, most int) (int, error) {
	return flagValue(c, name, 0, func(s string) (int, error) { return parseDecimal(s, 1, most) })
}

// forever is the duration that the word "forever" means.
const forever = time.Duration(math.MaxInt64)

// parseWait parses a duration, or the word "forever".
func parseWait(s string) (time.Duration, error) {
	if s == "forever" {
		return forever, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		err = errors.New(err.Error() + ", or forever")
	}
	return d, err
}

// stringFlag returns a flag with a value. Help shows value as its placeholder.
func stringFlag(name, alias, value, usage string) cli.Flag {
	f := &cli.StringFlag{Name: name, Usage: "`" + value + "` " + usage}
	if alias != "" {
		f.Aliases = []string{alias}
	}
	return f
}

// boolFlag returns a flag without a value.
func boolFlag(name, alias, usage string) cli.Flag {
	f := &cli.BoolFlag{Name: name, Usage: usage}
	if alias != "" {
		f.Aliases = []string{alias}
	}
	return f
}

func helpFlag() cli.Flag { return boolFlag("help", "h", "show this help") }
