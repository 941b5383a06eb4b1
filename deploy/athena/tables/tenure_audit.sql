-- The brokers' lines, as they are written: one JSON object in a line, plain or gzip.
--
-- What a run says of its Lambda function is left out: `function` is a reserved word, also within a struct.
--
-- For your bucket: the two places that say example-audit-logs. For your organisation: the accounts and regions, or
-- 'injected' instead of 'enum' for the accounts, where there are too many to list (each query must then name them).
-- Some other layout of the bucket is another storage.location.template and nothing else.
CREATE EXTERNAL TABLE IF NOT EXISTS tenure_audit (
  `v` int,
  `time` string,
  `boot` string,
  `event` string,
  `outcome` string,
  `run` struct<
    id: string,
    kind: string,
    execution_arn: string,
    state: string,
    attempt: int,
    standing: string,
    parents: array<string>,
    parent: string,
    task_arn: string,
    log_stream: string,
    invocation: string,
    trace: string,
    subject: struct<id: string, kind: string, issuer: string, assurance: string, groups: array<string>>,
    tags: map<string, string>
  >,
  `caller` struct<via: string, uid: bigint, gid: bigint, pid: int>,
  `door` string,
  `path` string,
  `source` string,
  `request` string,
  `vault_request_id` string,
  `lease_id` string,
  `expires` string,
  `version` bigint,
  `policy` string,
  `reason` string,
  `class` string,
  `detail` string,
  `recovered` struct<refused: bigint, dropped: bigint, failed_writes: bigint, torn_bytes: bigint, torn_file: string>,
  `previous` struct<seq: bigint, hash: string>,
  `key` struct<mount: string, name: string, wrapped: string>,
  `values` map<string, string>,
  `values_omitted` bigint,
  `values_key` string,
  `seq` bigint,
  `prev` string,
  `hash` string
)
PARTITIONED BY (`account` string, `region` string, `day` string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
WITH SERDEPROPERTIES ('ignore.malformed.json' = 'true', 'case.insensitive' = 'false')
STORED AS TEXTFILE
LOCATION 's3://example-audit-logs/tenure/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.account.type' = 'enum',
  'projection.account.values' = '111111111111,222222222222',
  'projection.region.type' = 'enum',
  'projection.region.values' = 'eu-central-1,eu-west-1',
  'projection.day.type' = 'date',
  'projection.day.format' = 'yyyy/MM/dd',
  'projection.day.range' = '2026/01/01,NOW',
  'projection.day.interval' = '1',
  'projection.day.interval.unit' = 'DAYS',
  'storage.location.template' = 's3://example-audit-logs/tenure/${account}/${region}/${day}/'
)
