// graphql-yoga with hand-written SQL and loaders, one statement a level: node yoga.mjs DATABASE_URL; prints its port.
import { createServer } from "node:http";
import DataLoader from "dataloader";
import { createSchema, createYoga } from "graphql-yoga";
import pg from "pg";

// As many connections as the other servers have.
const pool = new pg.Pool({ connectionString: process.argv[2], max: 20 });

const typeDefs = /* GraphQL */ `
  type Query { audiences(first: Int!): Audiences! }
  type Audiences { nodes: [Audience!]! }
  type Audience {
    id: ID! audienceId: String! name: String! description: String namespace: String! createdBy: String!
    createdAt: String! updatedAt: String! definition: Definition schedules(first: Int!): Schedules!
  }
  type Definition { name: String! expression: String! jobs(first: Int!): Jobs! }
  type Jobs { nodes: [Job!]! }
  type Job { status: String! createdAt: String! progress: Progress! }
  type Progress { fraction: Float! }
  type Schedules { nodes: [Schedule!]! }
  type Schedule { name: String! state: String! }
`;

const DEFINITIONS = "SELECT id, name, expression FROM comparison.definitions WHERE id = any($1)";
const JOBS = `SELECT parents.id AS parent, page.* FROM unnest($1::text[]) AS parents (id), LATERAL (
  SELECT j.status, j.created_at, j.fraction FROM comparison.evaluations e JOIN comparison.jobs j ON j.id = e.job_id
  WHERE e.definition_id = parents.id ORDER BY e.created_at DESC, e.job_id DESC LIMIT $2) AS page`;
const SCHEDULES = `SELECT parents.id AS parent, page.* FROM unnest($1::text[]) AS parents (id), LATERAL (
  SELECT s.name, s.state FROM comparison.scheduled l JOIN comparison.schedules s ON s.id = l.schedule_id
  WHERE l.audience_id = parents.id ORDER BY s.name, s.id LIMIT $2) AS page`;

const time = (value) => value.toISOString().replace(".000Z", "Z");
const query = async (name, text, values) => (await pool.query({ name, text, values })).rows;

const pages = (name, text) => {
  const bySize = new Map();
  return (id, size) => {
    if (!bySize.has(size)) {
      const load = async (ids) => {
        const byParent = new Map(ids.map((each) => [each, []]));
        for (const row of await query(name, text, [ids, size])) byParent.get(row.parent).push(row);
        return ids.map((each) => byParent.get(each));
      };
      bySize.set(size, new DataLoader(load));
    }
    return bySize.get(size).load(id);
  };
};

const context = () => ({
  definition: new DataLoader(async (ids) => {
    const byId = new Map((await query("definitions", DEFINITIONS, [ids])).map((row) => [row.id, row]));
    return ids.map((id) => byId.get(id) ?? null);
  }),
  jobs: pages("jobs", JOBS),
  schedules: pages("schedules", SCHEDULES),
});

const resolvers = {
  Query: {
    audiences: async (_, { first }) => ({
      nodes: await query("audiences", "SELECT * FROM comparison.audiences ORDER BY id DESC LIMIT $1", [first]),
    }),
  },
  Audience: {
    id: (row) => row.global_id,
    audienceId: (row) => row.audience_id,
    createdBy: (row) => row.created_by,
    createdAt: (row) => time(row.created_at),
    updatedAt: (row) => time(row.updated_at),
    definition: (row, _, { definition }) => definition.load(row.id),
    schedules: async (row, { first }, { schedules }) => ({ nodes: await schedules(row.id, first) }),
  },
  Definition: { jobs: async (row, { first }, { jobs }) => ({ nodes: await jobs(row.id, first) }) },
  Job: { createdAt: (row) => time(row.created_at), progress: (row) => row },
};

const yoga = createYoga({ schema: createSchema({ typeDefs, resolvers }), context, graphiql: false, logging: false });
const server = createServer(yoga);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
