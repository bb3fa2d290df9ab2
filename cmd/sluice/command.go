package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// command is a subcommand as it is called, helped with, completed and described in the manual: all of that is made of it.
type command struct {
	name    string
	args    string // beside options, as help shows them; "": there are none
	help    string
	options []option
	words   []word // what the first argument may be
	hidden  bool   // not for those who read help
	raw     bool   // run reads the arguments itself, which options describe
	run     func(c *invocation) int
}

// option is a flag of a command. It may stand anywhere behind the command.
type option struct {
	name   string // of one letter with one dash, else with two
	value  string // what it takes, as help shows it; "": nothing. FILE and PATH are completed as files
	preset string
	help   string
	many   bool // it may be given several times
}

// word is a fixed argument.
type word struct{ name, args, help string }

// invocation is one execution of a command.
type invocation struct {
	command        *command
	args           []string // as they were given
	values         map[string][]string
	words          []string // of args, what is neither an option nor its value
	stdin          io.Reader
	stdout, stderr io.Writer
}

// text is the value of an option, or its preset.
func (c *invocation) text(name string) string {
	if v := c.values[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	for i := range c.command.options {
		if o := &c.command.options[i]; o.name == name {
			return o.preset
		}
	}
	panic("BUG: no option " + name)
}

// on says whether an option without a value was given.
func (c *invocation) on(name string) bool { return c.text(name) == "true" }

// refuse says what failed, and gives the code of that.
func (c *invocation) refuse(err error) int {
	fmt.Fprintf(c.stderr, "sluice %s: %v\n", c.command.name, err)
	return exitRefused
}

// misused says what is wrong with the command line, and gives the code of that.
func (c *invocation) misused(format string, args ...any) int {
	fmt.Fprintf(c.stderr, "sluice %s: %s\n", c.command.name, fmt.Sprintf(format, args...))
	return exitUsage
}

// invoke runs the command.
func (k *command) invoke(c *invocation) int {
	c.command = k
	if k.raw {
		return k.run(c)
	}
	err := c.parse()
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(c.stdout, k.usage())
		return exitOK
	case err != nil:
		fmt.Fprintf(c.stderr, "sluice %s: %v\n%s", k.name, err, k.usage())
		return exitUsage
	}
	return k.run(c)
}

// parse reads the arguments by the command's definition.
func (c *invocation) parse() error {
	k := c.command
	flags := flag.NewFlagSet(k.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.values = map[string][]string{}
	for i := range k.options {
		o := &k.options[i]
		set := func(value string) error {
			if len(c.values[o.name]) > 0 && !o.many {
				return errors.New("it is given twice")
			}
			c.values[o.name] = append(c.values[o.name], value)
			return nil
		}
		if o.value == "" {
			flags.BoolFunc(o.name, "", set)
		} else {
			flags.Func(o.name, "", set)
		}
	}
	for rest := c.args; ; {
		if err := flags.Parse(rest); err != nil {
			return err
		}
		if flags.NArg() == 0 {
			break
		}
		c.words, rest = append(c.words, flags.Arg(0)), flags.Args()[1:]
	}
	if k.args == "" && len(c.words) > 0 {
		return fmt.Errorf("unexpected %q", c.words[0])
	}
	return nil
}

// dashed is the option as it is written.
func (o *option) dashed() string {
	if len(o.name) == 1 {
		return "-" + o.name
	}
	return "--" + o.name
}

// text is the option with what it takes.
func (o *option) text() string {
	if o.value == "" {
		return o.dashed()
	}
	return o.dashed() + " " + o.value
}

// synopsis is the command with its options and arguments.
func (k *command) synopsis() string {
	parts := []string{k.name}
	for i := range k.options {
		text := "[" + k.options[i].text() + "]"
		if k.options[i].many {
			text += "..."
		}
		parts = append(parts, text)
	}
	if k.args != "" {
		parts = append(parts, k.args)
	}
	return strings.Join(parts, " ")
}

// usage is the help of one command.
func (k *command) usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: sluice %s\n\n%s.\n", k.synopsis(), sentence(k.help))
	list := func(title string, rows [][2]string) {
		if len(rows) == 0 {
			return
		}
		b.WriteString("\n" + title + ":\n")
		width := 0
		for _, r := range rows {
			width = max(width, len(r[0]))
		}
		for _, r := range rows {
			fmt.Fprintf(&b, "  %-*s  %s\n", width, r[0], r[1])
		}
	}
	list("arguments", k.wordRows())
	list("options", k.optionRows())
	return b.String()
}

func (k *command) wordRows() (rows [][2]string) {
	for _, w := range k.words {
		rows = append(rows, [2]string{strings.TrimSpace(w.name + " " + w.args), w.help})
	}
	return rows
}

func (k *command) optionRows() (rows [][2]string) {
	for i := range k.options {
		o := &k.options[i]
		help := o.help
		if o.preset != "" {
			help += " (" + o.preset + ")"
		}
		rows = append(rows, [2]string{o.text(), help})
	}
	return rows
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// usage is the help of all commands.
func usage(all []command) string {
	var b strings.Builder
	b.WriteString("usage: sluice COMMAND [options]\n\n")
	for i := range all {
		if k := &all[i]; !k.hidden {
			fmt.Fprintf(&b, "  %s\n        %s\n", k.synopsis(), k.help)
		}
	}
	b.WriteString("\nSignals to run:\n")
	for _, s := range signals {
		fmt.Fprintf(&b, "  %-5s %s\n", s.name, s.help)
	}
	return b.String()
}
