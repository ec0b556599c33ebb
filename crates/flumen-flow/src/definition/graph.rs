//! What comes before what: what the names in `needs` mean, circles, and what is upstream of a task.

use std::collections::{BTreeMap, HashSet};

use flumen_core::task_kind::{Path, Problem};

use super::flow::Group;
use super::reading::Reading;
use super::tasks::Draft;

/// The tasks of a flow by name, and what comes before each.
#[derive(Debug)]
pub(super) struct Order {
    numbers: BTreeMap<String, usize>,
    groups: BTreeMap<String, Vec<usize>>,
    /// For each task, those that it needs, with the place of the name.
    pub needs: Vec<Vec<(usize, Path)>>,
}

impl Order {
    /// The order of `drafts`; what is wrong with it is noted.
    pub fn of(drafts: &[Draft], groups: &[Group], reading: &mut Reading<'_>) -> Self {
        let numbers: BTreeMap<String, usize> =
            drafts.iter().enumerate().map(|(number, draft)| (draft.id.clone(), number)).collect();
        let members = |group: &Group| {
            let inside =
                drafts.iter().enumerate().filter(|(_, draft)| is_in(groups, draft.group.as_deref(), &group.name));
            (group.name.clone(), inside.map(|(number, _)| number).collect::<Vec<_>>())
        };
        let members: BTreeMap<String, Vec<usize>> = groups.iter().map(members).collect();
        let mut order = Self { numbers, groups: members, needs: vec![Vec::new(); drafts.len()] };
        // A group stands for its last tasks, which follow from the needs inside it: those of single tasks come first.
        let mut later: Vec<(usize, String, Path)> = Vec::new();
        for (number, draft) in drafts.iter().enumerate() {
            for (name, path) in &draft.needs {
                match order.find(&draft.prefix, name) {
                    Some(need) if need == number => {
                        let problem = Problem::new(path.clone(), format!("task '{}' needs itself", draft.id));
                        reading.note("", &Path::top(), problem.hint("leave it out"));
                    }
                    Some(need) => order.add(number, need, path),
                    None if order.groups.contains_key(name) => later.push((number, name.clone(), path.clone())),
                    None => reading.note("", &Path::top(), order.unknown(draft, name, path)),
                }
            }
        }
        order.add_needs_of_groups(drafts, groups, &mut later, reading);
        for (number, name, path) in later {
            if order.groups[&name].contains(&number) {
                let message = format!("task '{}' needs the group '{name}' that it is in", drafts[number].id);
                reading.note("", &Path::top(), Problem::new(path, message));
                continue;
            }
            for last in order.last_of(&name, drafts) {
                order.add(number, last, &path);
            }
        }
        order.find_circles(drafts, reading);
        order
    }

    /// What a group needs, its first tasks need.
    fn add_needs_of_groups(
        &mut self,
        drafts: &[Draft],
        groups: &[Group],
        later: &mut Vec<(usize, String, Path)>,
        reading: &mut Reading<'_>,
    ) {
        for group in groups {
            let members = self.groups[&group.name].clone();
            let is_first = |number: &usize| self.needs[*number].iter().all(|(need, _)| !members.contains(need));
            let first: Vec<usize> = members.iter().copied().filter(is_first).collect();
            for (name, path) in &group.needs {
                match self.find("", name) {
                    Some(need) if members.contains(&need) => {
                        let message = format!("group '{}' needs a task of its own, '{name}'", group.name);
                        reading.note("", &Path::top(), Problem::new(path.clone(), message));
                    }
                    Some(need) => first.iter().for_each(|number| self.add(*number, need, path)),
                    None if self.groups.contains_key(name) => {
                        later.extend(first.iter().map(|number| (*number, name.clone(), path.clone())));
                    }
                    None => {
                        let problem = Problem::new(
                            path.clone(),
                            format!("group '{}' needs '{name}', which is not there", group.name),
                        );
                        let names = drafts.iter().map(|draft| draft.id.as_str());
                        reading.note("", &Path::top(), problem.nearest(name, names, "the tasks are"));
                    }
                }
            }
        }
    }

    fn add(&mut self, number: usize, need: usize, path: &Path) {
        if self.needs[number].iter().all(|(other, _)| *other != need) {
            self.needs[number].push((need, path.clone()));
        }
    }

    /// The task that a name means, to a task in a group whose names begin with `prefix`.
    pub fn find(&self, prefix: &str, name: &str) -> Option<usize> {
        let own = if prefix.is_empty() { None } else { self.numbers.get(&format!("{prefix}{name}")) };
        own.or_else(|| self.numbers.get(name)).copied()
    }

    fn unknown(&self, draft: &Draft, name: &str, path: &Path) -> Problem {
        let problem = Problem::new(path.clone(), format!("task '{}' needs '{name}', which is not there", draft.id));
        let names =
            self.numbers.keys().chain(self.groups.keys()).map(String::as_str).filter(|known| *known != draft.id);
        problem.nearest(name, names, "the tasks are")
    }

    /// The tasks of a group that no other task of it needs. What only takes something down is not waited for.
    fn last_of(&self, group: &str, drafts: &[Draft]) -> Vec<usize> {
        let members = &self.groups[group];
        let work = |number: &&usize| drafts[**number].teardown.is_none();
        let needed: HashSet<usize> =
            members.iter().filter(work).flat_map(|number| self.needs[*number].iter().map(|(need, _)| *need)).collect();
        members.iter().filter(work).copied().filter(|number| !needed.contains(number)).collect()
    }

    /// Notes each circle once, with the whole way round.
    fn find_circles(&self, drafts: &[Draft], reading: &mut Reading<'_>) {
        const NEW: u8 = 0;
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![NEW; drafts.len()];
        for start in 0..drafts.len() {
            if state[start] != NEW {
                continue;
            }
            // The tasks on the way, each with the number of its needs that were looked at.
            let mut way: Vec<(usize, usize)> = vec![(start, 0)];
            state[start] = OPEN;
            while let Some((number, looked)) = way.last_mut() {
                let Some((need, path)) = self.needs[*number].get(*looked) else {
                    state[*number] = DONE;
                    way.pop();
                    continue;
                };
                *looked += 1;
                match state[*need] {
                    NEW => {
                        state[*need] = OPEN;
                        way.push((*need, 0));
                    }
                    OPEN => {
                        let from = way.iter().position(|(on_way, _)| on_way == need).unwrap_or(0);
                        let mut names: Vec<&str> =
                            way[from..].iter().rev().map(|(on_way, _)| drafts[*on_way].id.as_str()).collect();
                        names.rotate_right(1);
                        names.push(names[0]);
                        let message = format!("tasks wait for each other in a circle: {}", names.join(" → "));
                        let problem = Problem::new(path.clone(), message).hint("take one of the 'needs' out");
                        reading.note("", &Path::top(), problem);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether the task `first` comes before the task `later`, directly or not.
    pub fn comes_before(&self, first: usize, later: usize) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![later];
        while let Some(next) = open.pop() {
            for (need, _) in &self.needs[next] {
                if *need == first {
                    return true;
                }
                if seen.insert(*need) {
                    open.push(*need);
                }
            }
        }
        false
    }

    /// Whether `task` needs `need` directly.
    pub fn is_direct(&self, task: usize, need: usize) -> bool {
        self.needs[task].iter().any(|(other, _)| *other == need)
    }
}

/// Whether `group` is `outer` or somewhere in it.
pub(super) fn is_in(groups: &[Group], group: Option<&str>, outer: &str) -> bool {
    let mut next = group;
    for _ in 0..=groups.len() {
        match next {
            None => return false,
            Some(name) if name == outer => return true,
            Some(name) => {
                next = groups.iter().find(|group| group.name == name).and_then(|group| group.group.as_deref())
            }
        }
    }
    false
}
