-- Makes one flat record of each line: what a step or server says in JSON, or a line of text, with who said it.
--
-- A step's line names its event under "sluiceway" (components/step.py); the model server's has a level (serving/log.py).

local LEVELS = { debug = true, info = true, warning = true, error = true, critical = true }

-- Words under which programs write secrets, in lower case.
local SECRET_WORDS = {
    "password", "passwd", "secret", "token", "apikey", "api_key", "api-key", "access_key", "private_key", "credential",
}

local function case_blind(word)
    return (word:gsub("[%a]", function(letter) return "[" .. letter:lower() .. letter:upper() .. "]" end)
        :gsub("%-", "%%-"))
end

local function without_secrets(text)
    text = text:gsub("(%-%-%-%-%-BEGIN [%u ]*PRIVATE KEY%-%-%-%-%-).*", "%1 ***")
    text = text:gsub("([%a][%w+.-]*://[^/%s:@]*):[^/%s@]+@", "%1:***@") -- user and password in an address
    text = text:gsub("(hooks%.slack%.com/services/)[%w/]+", "%1***")
    text = text:gsub("([Bb]earer )[%w%-._~+/=]+", "%1***")
    text = text:gsub("([Aa]uthorization[\"']?%s*[:=]%s*[\"']?%a+ )[^%s\"']+", "%1***")
    text = text:gsub("eyJ[%w%-_]+%.[%w%-_]+%.[%w%-_]+", "***") -- a JSON web token
    text = text:gsub("AKIA%u[%u%d]+", "***")
    text = text:gsub("ya29%.[%w%-_]+", "***") -- Google's access tokens
    for _, word in ipairs(SECRET_WORDS) do
        text = text:gsub("(" .. case_blind(word) .. "[\"']?%s*[=:]%s*[\"']?)[^%s\"',;&*]+", "%1***")
    end
    return text
end

local function clean(key, value)
    if type(value) == "table" then
        local whole = {}
        for name, part in pairs(value) do
            whole[name] = clean(name, part)
        end
        return whole
    end
    if type(value) ~= "string" then
        return value
    end
    local name = tostring(key):lower()
    for _, word in ipairs(SECRET_WORDS) do
        if name:sub(-#word) == word then
            return "***"
        end
    end
    return without_secrets(value)
end

-- The level of a line of text: the one that Python's or glog's format has, or a traceback; else by where it was written.
local function level_of(text, stream)
    for word in text:sub(1, 200):gmatch("%f[%u]%u%u%u%u+%f[%U]") do
        local named = word == "WARN" and "warning" or word:lower()
        if LEVELS[named] then
            return named
        end
    end
    local glog = text:match("^([IWEF])%d%d%d%d ")
    if glog then
        return ({ I = "info", W = "warning", E = "error", F = "critical" })[glog]
    end
    if text:find("^Traceback ") or text:find("^%w[%w_.]*Error: ") then
        return "error"
    end
    return stream == "stderr" and "warning" or "info"
end

-- The tag ends with the log file's name, pod_namespace_container-id.log, which is known when Kubernetes does not answer.
local function who(tag, record)
    local pod, namespace, container = tag:match("([^_./]+)_([^_]+)_(.+)%-%x+%.log$")
    local about = record["kubernetes"] or {}
    local labels = about["labels"] or {}
    return {
        namespace = about["namespace_name"] or namespace,
        pod = about["pod_name"] or pod,
        container = about["container_name"] or container,
        node = about["host"],
        run = labels["pipeline/runid"],
        service = labels["serving.kserve.io/inferenceservice"],
        stream = record["stream"],
    }
end

-- In record["said"] the filter before has put a line of JSON, as a table.
function line(tag, timestamp, record)
    local out = who(tag, record)
    local said = record["said"]
    if type(said) ~= "table" then
        local text = record["log"] or ""
        if text == "" then
            return -1, timestamp, record
        end
        out.level = level_of(text, out.stream)
        out.message = without_secrets(text)
        return 2, timestamp, out
    end
    for key, value in pairs(said) do
        if out[key] == nil then -- nobody says of himself that he is another
            out[key] = clean(key, value)
        end
    end
    out.time = nil -- the line's own time is the record's
    if said["sluiceway"] then
        out.event, out.sluiceway = said["sluiceway"], nil
        out.level = said["sluiceway"] == "failed" and "error" or "info"
        out.message, out.fact = out.message or out.fact or out.event, nil
    elseif not LEVELS[out.level] then
        out.level = level_of(tostring(out.level or ""):upper(), out.stream)
    end
    return 2, timestamp, out
end
