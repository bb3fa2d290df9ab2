package redis

import "github.com/redis/rueidis"

// recordScripts change records and tell the journal of it, in one step each.
type recordScripts struct{ put, swap, touch, end, endGroup, unlock *rueidis.Lua }

// tellScript adds a line to the journal: KEYS[2] is the number of lines so far, KEYS[3] the lines, whose ids are their numbers, so that who
// follows sees whether he has missed one. A journal whose number was lost begins anew.
const tellScript = `
local function tell(what, key)
  local n = redis.call('INCR', KEYS[2])
  if n == 1 then redis.call('DEL', KEYS[3]) end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, string.format('%.0f-0', n), what, key)
end
`

// putScript: KEYS[4] has all keys by when they end if nobody uses them; who ends first makes room, a few at a time. The rest of KEYS are
// groups; of those that grow, members are looked at now and then, and who has ended is taken out.
// ARGV: key, value, begun, idle in ms, end in ms, latest end in ms, most, prefix of names, now in ms.
const putScript = tellScript + `
local key, idle, stop, till, most, prefix = ARGV[1], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[9])
for i = 1, 16 do
  if redis.call('ZCARD', KEYS[4]) < most then break end
  local first = redis.call('ZPOPMIN', KEYS[4])[1]
  redis.call('DEL', prefix .. first)
  tell('end', first)
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'n', 1, 'u', ARGV[3], 'b', ARGV[3], 't', ARGV[6])
redis.call('PEXPIREAT', KEYS[1], stop)
redis.call('ZADD', KEYS[4], stop, key)
for i = 5, #KEYS do
  redis.call('ZADD', KEYS[i], till, key)
  if redis.call('ZCARD', KEYS[i]) % 64 == 0 then
    for _, other in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
      if redis.call('EXISTS', prefix .. other) == 0 then redis.call('ZREM', KEYS[i], other) end
    end
  end
  local last = redis.call('ZREVRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', tonumber(last)))
end
return 1
`

// swapScript: ARGV is key, version, value.
const swapScript = tellScript + `
if redis.call('HGET', KEYS[1], 'n') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'n', 1)
tell('change', ARGV[1])
return 1
`

// touchScript: KEYS[2] has all keys by their ends. ARGV is key, when it was used in ns, end in ms. Times in ns are texts of one length, more
// than a number of Lua can hold.
const touchScript = `
local u, t = unpack(redis.call('HMGET', KEYS[1], 'u', 't'))
if not u or not t or (#u == #ARGV[2] and u >= ARGV[2]) then return 0 end
local stop = string.format('%.0f', math.min(tonumber(ARGV[3]), tonumber(t)))
redis.call('HSET', KEYS[1], 'u', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], stop)
redis.call('ZADD', KEYS[2], stop, ARGV[1])
return 1
`

// endScript: KEYS[4] has all keys by their ends. It tells also of one that is not there: somebody may have a copy.
const endScript = tellScript + `
redis.call('ZREM', KEYS[4], ARGV[1])
tell('end', ARGV[1])
return redis.call('DEL', KEYS[1])
`

// endGroupScript: KEYS[1] is the group, KEYS[4] has all keys by their ends. ARGV is the prefix of names, and when they began at last in ns.
const endGroupScript = tellScript + `
local ended = 0
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local b = redis.call('HGET', ARGV[1] .. key, 'b')
  if not b then
    redis.call('ZREM', KEYS[1], key)
    tell('end', key)
  elseif #b == #ARGV[2] and b <= ARGV[2] then
    redis.call('DEL', ARGV[1] .. key)
    redis.call('ZREM', KEYS[1], key)
    redis.call('ZREM', KEYS[4], key)
    tell('end', key)
    ended = ended + 1
  end
end
return ended
`

const unlockScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
`

func newRecordScripts() recordScripts {
	return recordScripts{put: rueidis.NewLuaScript(putScript), swap: rueidis.NewLuaScript(swapScript), touch: rueidis.NewLuaScript(touchScript),
		end: rueidis.NewLuaScript(endScript), endGroup: rueidis.NewLuaScript(endGroupScript), unlock: rueidis.NewLuaScript(unlockScript)}
}
