package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"time"

	"github.com/redis/rueidis"
	"github.com/sluice-gateway/sluice/limits"
)

// script takes of the buckets of all its keys or of none. Its time is that of Redis, so the clocks of nodes do not matter. It is one step
// for Redis: nobody comes between.
//
// ARGV is what to do (take, charge, refund, forget, or ping, which touches nothing), then for each key: the cost that must be there, how much is wanted, and the number of
// windows; for each window: its kind, its limit, its period in microseconds, and its depth. A key's value is three numbers for each
// window: what is used, when (of a token bucket in microseconds, of a window its number), and what was used of the window before. What is
// not used grows back, so a bucket that was not seen is full, and a key expires when its bucket is.
//
// The token bucket is what is used, less limit*elapsed/period, against the depth: the same bound as in gcra.go. The windows are those of
// fixedwindow.go and slidingwindow.go, by the clock of Redis. As there a charge may make a token bucket owe as much as it holds.
//
// It answers: allowed; the key and window that refused or has the least left, from 0; what remains there, microseconds until all of it is
// back, and until the cost is; and how much was taken of the first key.
const script = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local op, at = ARGV[1], 2
if op == 'ping' then return {1, 0, 0, 0, 0, 0, 0} end
if op == 'forget' then return {redis.call('DEL', unpack(KEYS)), 0, 0, 0, 0, 0, 0} end
local values, windows, granted = {}, {}, {}
local function sane(v, most) -- what stands there may be anybody's
  v = tonumber(v) or 0
  return v == v and math.max(0, math.min(v, most)) or 0
end
local bk, bw, least, reset = 0, 0, nil, 0
for i = 1, #KEYS do
  local cost, want, n = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 3
  local s = {}
  for v in string.gmatch(redis.call('GET', KEYS[i]) or '', '%S+') do
    if #s < 3 * n then s[#s + 1] = v end
  end
  granted[i] = want
  for w = 0, n - 1 do
    local kind, limit, period, depth = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    at = at + 4
    local most = kind == 'b' and 2 * depth or limit
    local used, when, before = sane(s[3 * w + 1], most), sane(s[3 * w + 2], 2 ^ 53), sane(s[3 * w + 3], most)
    local index, phase = math.floor(now / period), now % period
    local left, back, wait = 0, 0, 0
    if kind == 'b' then
      used = math.max(0, used - math.max(0, now - when) * limit / period)
      when = now
      left = depth - used
      back = used * period / limit
      wait = (used + cost - depth) * period / limit
    else
      if when < index then
        before = (kind == 's' and when == index - 1) and used or 0
        used = 0
      end
      when = index
      left = limit - used
      back = period - phase
      wait = back
      if kind == 's' then
        left = limit - used - before * (1 - phase / period)
        if used + cost <= limit and before > 0 then
          wait = (1 - (limit - cost - used) / before) * period - phase
        else
          wait = back + math.max(0, 1 - (limit - cost) / math.max(used, 1)) * period
        end
        if used > 0 then back = back + period end
      end
    end
    left = math.floor(left + 1e-6)
    if op == 'take' and left < cost then
      if cost > depth then wait = -1 else wait = math.max(1, math.ceil(wait)) end
      return {0, i - 1, w, math.max(0, left), math.ceil(back), wait, 0}
    end
    if op == 'take' then granted[i] = math.min(granted[i], left) end
    local after = op == 'take' and left - cost or left
    if least == nil or after < least then bk, bw, least, reset = i - 1, w, after, back end
    s[3 * w + 1], s[3 * w + 2], s[3 * w + 3] = used, when, before
    windows[#windows + 1] = {i, w, kind, limit, period, most, phase}
  end
  values[i] = s
end
local ttl = {}
for _, x in ipairs(windows) do
  local i, w, kind, limit, period, most, phase = x[1], x[2], x[3], x[4], x[5], x[6], x[7]
  local s = values[i]
  local used = s[3 * w + 1]
  if op == 'take' then
    used = used + granted[i]
  elseif op == 'charge' then
    used = math.min(used + granted[i], most)
  else
    used = math.max(0, used - granted[i])
  end
  s[3 * w + 1] = used
  local life = period - phase
  if kind == 'b' then life = used * period / limit elseif kind == 's' then life = life + period end
  ttl[i] = math.max(ttl[i] or 1, math.ceil(life / 1000))
end
for i = 1, #KEYS do
  local text = {}
  for j, v in ipairs(values[i]) do text[j] = string.format('%.17g', v) end
  redis.call('SET', KEYS[i], table.concat(text, ' '), 'PX', string.format('%.0f', ttl[i]))
end
return {1, bk, bw, math.max(0, least), math.ceil(reset), 0, granted[1]}
`

// digest is the name under which Redis knows the script.
func digest() string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}

// answer is what the script says.
type answer struct {
	allowed      bool
	key, window  int
	remaining    uint32
	reset, retry time.Duration
	granted      uint32
	err          error
}

var errAnswer = errors.New("redis gave an answer that the script does not give")

// readAnswer reads what the script gave, for a command of so many keys. Redis is believed as little as a client is.
func readAnswer(r rueidis.RedisResult, keys int) (a answer) {
	v, err := r.AsIntSlice()
	if err != nil {
		return answer{err: err}
	}
	if len(v) != 7 || v[1] < 0 || v[1] >= int64(keys) || v[2] < 0 || v[2] >= limits.MaxWindows {
		return answer{err: errAnswer}
	}
	for _, n := range [...]int64{v[3], v[6]} {
		if n < 0 || n > 1<<32-1 {
			return answer{err: errAnswer}
		}
	}
	a = answer{allowed: v[0] == 1, key: int(v[1]), window: int(v[2]), remaining: uint32(v[3]), granted: uint32(v[6]), reset: micros(v[4]), retry: micros(v[5])}
	if v[5] < 0 {
		a.retry = limits.Never
	}
	return a
}

// micros is a time that may be as long as any period, and no longer.
func micros(n int64) time.Duration {
	return time.Duration(max(0, min(n, int64(2*limits.MaxPeriod/time.Microsecond)))) * time.Microsecond
}
